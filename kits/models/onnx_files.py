"""The content of an exported file: the graph, its configuration, and what must not be in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config import one_line
from kits.config.schema.exported import Exported
from kits.core.errors import KitsError
from kits.models.settings import DIGEST, METADATA, STAGES, check_format, edited, parse_settings, to_plain

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import ModelProto

# The graph's input (B, 1, D, H, W) and outputs: logits (B, C, D, H, W) and, of a network with sources, (B, sources, C, D, H, W).
VOLUME, LOGITS, SOURCES = "volume", "logits", "sources"
# All that torch's exporter writes, by message (onnx.proto): no functions, no graphs within nodes, no training, no sparse numbers,
# and of a tensor neither the place nor the name of another file, wherever a tensor may stand.
FIELDS = {
    "ModelProto": "ir_version opset_import producer_name producer_version graph metadata_props",
    "GraphProto": "name node initializer input output value_info",
    "NodeProto": "name op_type domain input output attribute",
    "AttributeProto": "name type f i s t floats ints",
    "TensorProto": "name data_type dims raw_data",
    "ValueInfoProto": "name type",
    "TypeProto": "tensor_type",
    "Tensor": "elem_type shape",
    "TensorShapeProto": "dim",
    "Dimension": "dim_value dim_param",
    "OperatorSetIdProto": "domain version",
    "StringStringEntryProto": "key value",
}
# What networks compute with; none of ONNX's operators on texts, sequences, pictures or random numbers.
OPERATORS = (
    "Abs Add AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose DepthToSpace Div"
    " Elu Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool Greater GroupNormalization HardSigmoid HardSwish"
    " Identity InstanceNormalization LayerNormalization LeakyRelu Less Log MatMul Max MaxPool Min Mish Mod Mul Neg Not PRelu Pad"
    " Pow Range Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape Resize Selu Shape Sigmoid Slice Softmax Softplus Split"
    " Sqrt Squeeze Sub Swish Tanh Tile Transpose Unsqueeze Where"
)
MOST_BYTES = 1 << 31  # protobuf takes no more


def require_libraries(*names: str) -> None:
    """Raise KitsError where a library of the extra is not installed."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise KitsError(f"ONNX: {name} is not installed; pip install 'kits[export]'") from error


def to_metadata(model: ModelProto, settings: Exported) -> str:
    """Write JSON of the settings and of a digest of all that the file says."""
    kept = to_plain(settings, model=False)
    return json.dumps({**kept, DIGEST: digest_of(model, kept)})


def read_file(path: Path, stage: str) -> tuple[bytes, Exported]:
    """Read an exported network of a stage: the bytes of what was checked, and its settings.

    Raises:
        KitsError: no such file, none that kits.export wrote, of the other stage or of another format, or edited.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    if not path.is_file():
        raise KitsError(f"{path}: no such file; python -m kits.export {stage}=CKPT output=DIR writes one")
    try:
        if path.stat().st_size >= MOST_BYTES:
            raise KitsError(f"{path}: larger than an ONNX file can be; give one that kits.export wrote")
        model = ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise KitsError(f"{path}: cannot be opened ({error.strerror}); check who may read it") from error
    except DecodeError as error:
        raise KitsError(f"{path}: not an ONNX file, or a truncated one; give one that kits.export wrote") from error
    try:
        config = config_of(path, model)
        digest = config.pop(DIGEST, None)
        check_format(path, config, stage)
        settings = parse_settings(path, config)
        check_graph(path, model)
        if digest != digest_of(model, config):
            raise edited(path, "its SHA-256 is not the one that was written")
        return model.SerializeToString(), settings
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Text that is no UTF-8, JSON without end, a list in the place of a group: whatever a damaged file may hold.
        raise edited(path, f"{type(error).__name__}: {one_line(error)[:80]}") from error


def config_of(path: Path, model: ModelProto) -> dict[str, Any]:
    """Return the configuration in a model's metadata."""
    entries = list(model.metadata_props)
    written = next((entry.value for entry in entries if entry.key == METADATA), None)
    if written is not None and len(entries) > 1:
        raise edited(path, "it has metadata besides its configuration")
    if written is None:
        what = "an ONNX file of another program" if model.graph.node else "not an ONNX file"
        raise KitsError(f"{path}: {what}; give one that kits.export wrote")
    try:
        config = json.loads(written)
    except ValueError:
        config = None
    if not isinstance(config, dict) or config.get("stage") not in list(STAGES) or not isinstance(config.get("kits_format"), int):
        raise edited(path, "its configuration cannot be read")
    return config


def check_graph(path: Path, model: ModelProto) -> None:
    """Refuse a file that is more than ONNX's own operators on numbers that are in the file itself.

    Raises KitsError.
    """
    from google.protobuf.unknown_fields import UnknownFieldSet

    for message in messages(model):
        kind = message.DESCRIPTOR.name
        foreign = [field.name for field, _ in message.ListFields() if field.name not in FIELDS.get(kind, "").split()]
        if kind == "TensorProto" and {"external_data", "data_location"} & set(foreign):
            raise edited(path, "its numbers are in other files")
        if foreign or len(UnknownFieldSet(message)):
            raise edited(path, f"it has {kind}.{foreign[0] if foreign else 'fields that nobody knows'}, which no export has")
    known = set(OPERATORS.split())
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            raise edited(path, f"it has the operator {f'{node.domain}.{node.op_type}'.lstrip('.')[:40]}")
    if any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
        raise edited(path, "it has operators that are not ONNX's own")
    ends = [one.name for one in model.graph.input], [one.name for one in model.graph.output]
    if ends not in (([VOLUME], [LOGITS]), ([VOLUME], [LOGITS, SOURCES])):
        raise edited(path, f"its graph goes from {', '.join(ends[0])[:40]} to {', '.join(ends[1])[:40]}")


def messages(message: Message) -> Iterator[Message]:
    """Yield a protobuf message and every message within it, whatever its fields are called."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from messages(inner)


def digest_of(model: ModelProto, config: Mapping[str, Any]) -> str:
    """Digest (SHA-256) settings and what a model says beside them, whichever protobuf wrote it."""
    content = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for message in messages(model):
        name = message.DESCRIPTOR.name
        for field, value in message.ListFields():
            if field.message_type is None and name != "StringStringEntryProto":
                plain = value if isinstance(value, str | bytes | int | float) else list(value)
                content.update(f"{name}.{field.name}".encode())
                content.update(plain if isinstance(plain, bytes) else repr(plain).encode())
    return content.hexdigest()
