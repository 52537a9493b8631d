"""The segmenter that a configuration of `kits.predict` asks for, and what a result of it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.core.errors import KitsError
from kits.core.sharding import local_rank
from kits.prediction.outputs import LABELS

if TYPE_CHECKING:
    from kits.inference.segmenter import Segmenter

# Settings on which a result depends, besides its checkpoints; where and in how large steps it is computed changes it by rounding.
SETTINGS = ("mirror", "precision", "window", "margin_mm", "min_component_ml")


def checkpoints(config: Mapping[str, Any], stage: str) -> list[Path]:
    """The checkpoints of a stage, of which one or several are given.

    Raises:
        KitsError: none is given.
    """
    given = config[stage]
    paths = [Path(path) for path in ([given] if isinstance(given, str) else given or ())]
    if not paths:
        raise KitsError(f"{stage}: no checkpoint given; add {stage}=CKPT, or {stage}=[CKPT,CKPT] to average several")
    return paths


def load_segmenter(config: Mapping[str, Any], save: tuple[str, ...]) -> Segmenter:
    """Load the checkpoints of both stages.

    Args:
        save: what is written of each scan.

    Raises:
        KitsError: one is no checkpoint of its stage, or the device or a setting cannot be used.
    """
    from kits.inference.onnx_network import own_way
    from kits.inference.segmenter import Options, Segmenter

    files = {stage: checkpoints(config, stage) for stage in ("coarse", "fine")}
    given = [*files["coarse"], *files["fine"]]
    check_backend(config["backend"], given)
    options = Options(
        **{name: config[name] for name in SETTINGS if name != "precision"},
        precision=str(config["precision"]),
        slices_at_once=config["slices_at_once"],
        outputs=tuple(name for name in save if name != LABELS),
        refuse_implausible=not config["allow_implausible"],
    )
    device = own_way(given, config["device"])
    return Segmenter.load(files["coarse"], files["fine"], own_device(device), options)


def check_backend(backend: str, paths: Sequence[Path | str]) -> None:
    """Raise KitsError where a file is not of the backend that is asked for; `auto` takes either, by the ending of its name."""
    from kits.models.onnx_files import SUFFIX, is_exported

    for path in paths:
        if backend == "onnx" and not is_exported(path):
            raise KitsError(f"backend=onnx: {path} is no {SUFFIX} file; python -m kits.export writes one of a checkpoint")
        if backend == "torch" and is_exported(path):
            raise KitsError(f"backend=torch: {path} is an exported network; give the checkpoint, or leave backend out")


def own_device(name: str) -> str:
    """The GPU of this process's number on its machine, where there are several and none is named."""
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{local_rank() % gpus}" if gpus and name in ("auto", "cuda") else name


def made_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """What results must agree in to be of one kind: the contents of the checkpoints, and the settings that change a result."""
    from kits.data.cache import file_digest

    hashes = {stage: [file_digest(path) for path in checkpoints(config, stage)] for stage in ("coarse", "fine")}
    return {"checkpoints": hashes, "settings": {name: config[name] for name in SETTINGS}}


def told_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What else the report says of a run."""
    return {
        "checkpoint_files": {stage: [str(path) for path in checkpoints(config, stage)] for stage in ("coarse", "fine")},
        "input": str(config["input"]),
        "device": str(config["device"]),
    }
