"""Exported networks in the place of those of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kits.config import one_line
from kits.config.schema.exported import Exported, Graph, SegmenterOptions
from kits.core.errors import KitsError
from kits.inference.devices import AUTO, is_out_of_memory
from kits.models.checkpoint import load_network
from kits.models.layers import check_in_plane
from kits.models.onnx_files import LOGITS, SOURCES, VOLUME, read_file, require_libraries
from kits.models.settings import edited, is_exported

# onnxruntime's severity of errors: it would print warnings about graphs that run all the same.
ERRORS_ONLY = 3


class ExportedNetwork(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W), computed by onnxruntime on the CPU.

    It has no parameters that torch knows of: `to(device)` moves nothing, and autocast changes nothing.
    """

    def __init__(self, path: Path, content: bytes, network: Graph) -> None:
        super().__init__()
        self.path = path
        self.session = open_session(path, content)
        self.in_plane_multiple, self.fixed_size, self.reach = network.in_plane_multiple, network.fixed_size, network.reach
        self.classes, self.sources = network.classes, network.sources

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits of every voxel of `volume`, (B, 1, D, H, W)."""
        return self._run([LOGITS], volume)[0]

    def _run(self, outputs: list[str], volume: Tensor) -> list[Tensor]:
        import onnxruntime

        check_in_plane(volume, self.in_plane_multiple, self.fixed_size)
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True  # the sources' logits are not free
        given = np.ascontiguousarray(volume.detach().cpu().numpy())
        try:
            found = self.session.run(outputs, {VOLUME: given}, options)
        except Exception as error:  # onnxruntime's have no other class in common
            if is_out_of_memory(error) or "allocat" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(one_line(error)) from error
            raise KitsError(f"{self.path}: onnxruntime cannot compute it ({one_line(error)[:200]}); export it again") from error
        for name, values in zip(outputs, found, strict=True):
            expected = {LOGITS: (self.classes,), SOURCES: (self.sources, self.classes)}[name]
            if values.dtype != np.float32 or values.shape != (len(volume), *expected, *volume.shape[2:]):
                raise edited(self.path, f"its {name} are {values.dtype} of shape {values.shape}")
        return [torch.from_numpy(values).to(volume.device) for values in found]


class ExportedSources(ExportedNetwork):
    """An exported network that also gives the logits of each of its sources."""

    def all_logits(self, volume: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute fused logits and each source's own; all (B, classes, D, H, W)."""
        fused, sources = self._run([LOGITS, SOURCES], volume)
        return fused, list(sources.unbind(1))


def open_session(path: Path, content: bytes) -> Any:
    """Open an onnxruntime session on as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's have no other class in common
        raise KitsError(f"{path}: onnxruntime cannot load it ({one_line(error)[:200]}); export it again") from error


def load_exported(path: Path, stage: str) -> tuple[ExportedNetwork, Exported]:
    """Load the exported network of a stage, and its settings.

    Raises:
        KitsError: `read_file` refuses the file, or onnxruntime does or is not installed.
    """
    require_libraries("onnx", "onnxruntime")
    content, settings = read_file(path, stage)
    return (ExportedSources if settings.network.sources else ExportedNetwork)(path, content, settings.network), settings


def load_member(path: Path, stage: str, device: torch.device | str) -> tuple[nn.Module, Exported]:
    """Load a stage's network and its settings from a checkpoint or an exported file.

    Raises:
        KitsError: the file is neither of that stage.
    """
    return load_exported(path, stage) if is_exported(path) else load_network(path, stage, device)


def device_for(paths: Sequence[Path | str], device: str) -> str:
    """Name the device for these files: exported networks compute on the CPU, and so then do all.

    Raises:
        KitsError: another device is asked for.
    """
    if not any(map(is_exported, paths)):
        return device
    if device not in ("auto", "cpu"):
        raise KitsError(f"device={device}: exported networks compute on the CPU; take device=cpu, or the checkpoints")
    return "cpu"


def refuse_options(networks: Sequence[nn.Module], options: SegmenterOptions) -> bool:
    """Tell whether a network is an exported one; raise KitsError for options that it cannot follow."""
    if not any(isinstance(network, ExportedNetwork) for network in networks):
        return False
    if options.precision not in (AUTO, "32"):
        raise KitsError(f"precision={options.precision}: exported networks compute in 32; leave it out, or take the checkpoints")
    if options.slices_at_once is not None:
        raise KitsError("slices_at_once: in exported networks all slices pass at once; take a smaller window, or the checkpoints")
    return True
