"""What is in an exported file: the graph, its configuration, and what must not be in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.checkpoint import check_config
from kits.config.schema import parse
from kits.config.schema.exported import Exported, ExportedCoarse, ExportedFine, ExportedOptions
from kits.errors import KitsError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

SUFFIX = ".onnx"
# The graph's input (B, 1, D, H, W) and outputs: logits (B, C, D, H, W) and, of a network with sources, (B, sources, C, D, H, W).
VOLUME, LOGITS, SOURCES = "volume", "logits", "sources"
# Where in the file's metadata the configuration stands, as JSON.
METADATA = "kits"
STAGES: dict[str, type[ExportedOptions]] = {"coarse": ExportedCoarse, "fine": ExportedFine}


def is_exported(path: Path | str) -> bool:
    """Whether a file is an exported network by the ending of its name, and no checkpoint."""
    return Path(path).suffix.lower() == SUFFIX


def require_libraries(*names: str) -> None:
    """Raise KitsError where a library of the extra is not installed."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise KitsError(f"ONNX: {name} is not installed; pip install 'kits[export]'") from error


def to_metadata(config: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    """JSON of what prediction needs of a checkpoint's configuration; no path and no name of the training machine is in it."""
    whole: dict[str, Any] = {**config, "network": network}
    kept: dict[str, Any] = {}
    for name, part in STAGES[config["stage"]].model_fields.items():
        keys = getattr(part.annotation, "model_fields", None)
        kept[name] = whole.get(name) if keys is None else {key: whole[name][key] for key in keys if key in whole[name]}
    return json.dumps(kept)


def read_file(path: Path, stage: str) -> tuple[bytes, dict[str, Any]]:
    """An exported network of a stage: the file's bytes, which are sound, and its configuration.

    Raises:
        KitsError: no such file, none that kits.export wrote, of the other stage or of another format, or edited.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    if not path.is_file():
        raise KitsError(f"{path}: no such file; python -m kits.export {stage}=CKPT output=DIR writes one")
    try:
        content = path.read_bytes()
        model = ModelProto.FromString(content)
    except OSError as error:
        raise KitsError(f"{path}: cannot be opened ({error.strerror}); check who may read it") from error
    except DecodeError as error:
        raise KitsError(f"{path}: not an ONNX file, or a truncated one; give one that kits.export wrote") from error
    config = config_of(path, model)
    check_config(path, config, stage)
    check_values(path, config)
    check_graph(path, model)
    return content, config


def config_of(path: Path, model: ModelProto) -> dict[str, Any]:
    """The configuration in a model's metadata."""
    written = next((entry.value for entry in model.metadata_props if entry.key == METADATA), None)
    if written is None:
        what = "an ONNX file of another program" if model.graph.node else "not an ONNX file"
        raise KitsError(f"{path}: {what}; give one that kits.export wrote")
    try:
        config = json.loads(written)
    except ValueError:
        config = None
    if not isinstance(config, dict) or str(config.get("stage")) not in STAGES or "kits_format" not in config:
        raise edited(path, "its configuration cannot be read")
    return config


def check_values(path: Path, config: dict[str, Any]) -> None:
    """Raise KitsError unless a configuration has the keys that an export writes, no others, and values that these may have."""
    try:
        parse(Exported, config)
    except KitsError as error:
        raise edited(path, f"its configuration: {error}") from error


def check_graph(path: Path, model: ModelProto) -> None:
    """Raise KitsError where a graph is more than ONNX's own operators on numbers that are in the file itself."""
    foreign = sorted({node.domain for node in nodes(model.graph)} - {"", "ai.onnx"})
    if foreign or model.functions:
        raise edited(path, f"it has operators that are not ONNX's own ({', '.join(foreign) or 'functions'})")
    if any(tensor.external_data or tensor.data_location for tensor in tensors(model.graph)):
        raise edited(path, "its numbers are in other files")
    ends = [one.name for one in model.graph.input], [one.name for one in model.graph.output]
    if ends not in (([VOLUME], [LOGITS]), ([VOLUME], [LOGITS, SOURCES])):
        raise edited(path, f"its graph goes from {', '.join(ends[0])[:40]} to {', '.join(ends[1])[:40]}")


def edited(path: Path, what: str) -> KitsError:
    """The refusal of a file that kits.export has not written so."""
    return KitsError(f"{path}: damaged or edited ({what}); give one that kits.export wrote")


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of a graph, and of the graphs within its nodes."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from nodes(inner)


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor of a graph, and of the graphs within its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for inner in inner_graphs(node):
            yield from tensors(inner)


def inner_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node runs: the branches of a condition, the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
