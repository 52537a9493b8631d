"""An ONNX file from a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kits import __version__
from kits.config import one_line
from kits.core.errors import KitsError
from kits.inference.members import limit_slices
from kits.inference.onnx_network import load_exported
from kits.io import whole_file
from kits.models.checkpoint import load_network
from kits.models.onnx_files import LOGITS, SOURCES, VOLUME, messages, to_metadata
from kits.models.settings import METADATA

if TYPE_CHECKING:
    from onnx import ModelProto

# Largest difference of logits between torch and onnxruntime (both round float32 in their own order).
TOLERANCE = 1e-3
# Sizes of the example that is traced, and of the other one that is compared: (batch, slices, rows, columns), the last two in
# multiples of what the network takes. A size of 1 would be traced as one that never changes.
TRACED, COMPARED = (2, 5, 2, 3), (1, 4, 3, 2)


class AllOutputs(nn.Module):
    """Fused logits (B, C, D, H, W) and, of a network with sources, theirs (B, sources, C, D, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        all_logits = getattr(self.network, "all_logits", None)
        if all_logits is None:
            return self.network(volume)
        fused, sources = all_logits(volume)
        return fused, torch.stack(list(sources), dim=1)


def export_network(checkpoint: Path, stage: str, path: Path) -> float:
    """Write a checkpoint's network as ONNX; return its logits' largest difference from torch's.

    Raises:
        KitsError: not a checkpoint of that stage, a network that torch cannot express in ONNX, or results that differ.
    """
    network, settings = load_network(checkpoint, stage, "cpu")
    # Another copy is traced: what is compared stays as it was trained.
    example_network = load_network(checkpoint, stage, "cpu")[0]
    limit_slices([example_network], None)  # no loop over a number of slices that is not known yet
    model = traced(example_network, checkpoint)
    model.producer_name, model.producer_version = "kits", __version__
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, to_metadata(model, settings)
    with whole_file(path, path.suffix) as temporary:
        temporary.write_bytes(model.SerializeToString())
        exported, _ = load_exported(temporary, stage)
        difference = largest_difference(network, exported)
        if not difference <= TOLERANCE:
            raise KitsError(
                f"{checkpoint}: its logits in ONNX differ by {difference:.2g} from torch's, more than {TOLERANCE:g}; not written"
            )
    return difference


@torch.no_grad()
def traced(network: nn.Module, checkpoint: Path) -> ModelProto:
    """Trace a network for any batch, any number of slices, and rows and columns in its multiples."""
    multiple: int = network.in_plane_multiple  # type: ignore[assignment]
    dim = torch.export.Dim
    sizes: dict[int, Any] = {0: dim("batch"), 2: dim.DYNAMIC}
    if not getattr(network, "fixed_size", False):
        sizes |= {3: multiple * dim("rows"), 4: multiple * dim("columns")}
    has_sources = hasattr(network, "all_logits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own inner workings
        try:
            program = torch.onnx.export(
                AllOutputs(network).eval(),
                (example(network, TRACED),),
                dynamo=True,
                dynamic_shapes={"volume": sizes},
                input_names=[VOLUME],
                output_names=[LOGITS, SOURCES] if has_sources else [LOGITS],
                external_data=False,
                verbose=False,
            )
        except (RuntimeError, ValueError) as error:
            reason = one_line(error.__cause__ or error)[:200]
            raise KitsError(
                f"{checkpoint}: torch cannot express its network in ONNX ({reason}); keep to the checkpoint"
            ) from error
    assert program is not None
    model = program.model_proto  # another one each time that it is asked for
    for message in messages(model):
        for field in ("doc_string", "metadata_props"):  # source lines and paths of this machine
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    return model


def example(network: nn.Module, size: tuple[int, int, int, int]) -> Tensor:
    """Draw numbers (B, 1, D, H, W) in [-1, 1], always the same ones."""
    batch, slices, *sides = size
    if getattr(network, "fixed_size", False):
        sides = [1, 1]
    rows, columns = (side * int(network.in_plane_multiple) for side in sides)  # type: ignore[arg-type]
    return torch.rand(batch, 1, slices, rows, columns, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def largest_difference(network: nn.Module, exported: nn.Module) -> float:
    """Compare all logits, fused and by source, on numbers of another size than was traced."""
    volume = example(network, COMPARED)
    pairs = [(network(volume), exported(volume))]
    if hasattr(network, "all_logits"):
        pairs += zip(network.all_logits(volume)[1], exported.all_logits(volume)[1], strict=True)  # type: ignore[operator]
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
