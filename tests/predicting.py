"""What the tests of prediction share: two tiny networks in real checkpoints, and the command as a user calls it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.commands import Predict
from kits.prediction.segmenting import predict_labels
from kits.readout.cohort import READOUT, readout_of
from tests.conftest import training_options

SIZE = ["data.coarse_size=32", "data.roi_rule.min_voxels=100", "data.root=x", "data.cache=x", "run_dir=x"]
STAGES = {
    "coarse": [
        "stage=coarse",
        "sampling.patch=[20,32,32]",
        "model.widths=[4,8]",
        "model.strides=[[1,2,2],[2,2,2]]",
        "model.kernels=[[3,3,3],[3,3,3]]",
    ],
    "fine": [
        "stage=fine",
        "sampling.patch=[8,32,32]",
        "model.sources=[{backbone:test_efficientnet,weights:null}]",
        "model.out_indices=[0,1]",
        "model.widths=[8,8]",
        "model.width=8",
    ],
}


def write_checkpoint(path: Path, stage: str, *overrides: str, seed: int = 0) -> Path:
    """A network with random weights in a checkpoint as the training writes it."""
    from kits.training.modules import MODULES

    torch.manual_seed(seed)
    module = MODULES[stage](training_options([*STAGES[stage], *SIZE, *overrides]), pretrained=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, path)
    return path


def write_checkpoints(folder: Path) -> list[str]:
    """`coarse=` and `fine=` of the command line."""
    return [f"{stage}={write_checkpoint(folder / f'{stage}.ckpt', stage)}" for stage in STAGES]


def run(*overrides: str) -> None:
    """`kits.predict` in this process, errors raised."""
    options = config_of(*overrides)
    predict_labels(options, {READOUT: readout_of} if options.measure else None)


def config_of(*overrides: str) -> Predict:
    """The options of the command on a CPU."""
    options: Predict = parse(Predict, compose("predict", ["device=cpu", *overrides]))
    return options


def command(*overrides: str, module: str = "predict", **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    call = [sys.executable, "-m", f"kits.{module}", *overrides]
    return subprocess.run(call, capture_output=True, text=True, **options)
