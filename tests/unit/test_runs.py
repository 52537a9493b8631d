"""Runs that are killed and go on, runs that are asked to stop, and what their folders hold.

Trainings run in processes that fork from a server with everything imported, and are killed for good: by themselves, with SIGKILL,
at the moment that a test names.
"""

import csv
import functools
import json
import multiprocessing
import os
import random
import shlex
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kits.checkpoint import FORMAT, convert, load_network, open_checkpoint
from kits.cli import compose
from kits.config import all_keys
from kits.data.preparation import prepare
from kits.errors import KitsError
from kits.runs.folder import check_unused, get, read_manifest, resumed_configuration
from kits.runs.metrics_file import MetricsFile
from kits.runs.random_state import random_state, set_random_state

TINY = [
    "stage=coarse",
    "split=paper",
    "augmentation=light",
    "data.roi_rule.min_voxels=100",
    "data.coarse_size=32",
    "data.workers=1",
    "data.loader_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "sampling.patch=[8,32,32]",
    "sampling.batch_size=1",
    "sampling.patches_per_epoch=5",
    "optimizer.lr=0.01",
    "model.widths=[4,8]",
    "model.strides=[[1,2,2],[2,2,2]]",
    "model.kernels=[[3,3,3],[3,3,3]]",
    "callbacks.checkpoint.every_steps=2",
]
FINE = [
    "stage=fine",
    *TINY[1:-4],
    "inference.window=20",
    "model.sources=[{backbone:test_efficientnet,weights:null}]",
    "model.out_indices=[0,1]",
    "model.widths=[4,4]",
    "model.width=4",
    "model.stem_width=2",
    "model.freeze_statistics=false",
    "training=staged",
    "staged_shares=[0.34,0.33]",
    "callbacks.checkpoint.every_steps=3",
]


def run_and_die(config: dict, event: str, count: int, number: int, queue=None) -> None:
    """Train, and send this process a signal at an event's turn `count` (from 1); every step draws random numbers."""
    from kits import stages
    from kits.runs import saving
    from kits.train import train

    torch.set_num_threads(1)
    seen = 0

    def happens(what: str) -> bool:
        nonlocal seen
        seen += what == event
        return what == event and seen == count

    def at(what: str, function):
        @functools.wraps(function)
        def wrapped(*arguments, **options):
            if happens(what):
                os.kill(os.getpid(), number)
            return function(*arguments, **options)

        return wrapped

    def noisy(function):
        @functools.wraps(function)
        def wrapped(self, batch, index):
            noise = torch.rand(()).item() + random.random() + np.random.random()  # noqa: NPY002
            return function(self, {**batch, "image": batch["image"] + 0.1 * noise}, index)

        return wrapped

    for module in stages.MODULES.values():
        module.training_step = at("step", noisy(module.training_step))
    stages.StageModule.validation_step = at("validation", stages.StageModule.validation_step)
    write = torch.save

    def half(content, stream) -> None:
        write(content, stream)
        if happens("write"):
            stream.truncate(stream.tell() // 2)
            stream.flush()
            os.kill(os.getpid(), number)

    saving.torch.save = half
    replace = os.replace

    def renamed(source, target) -> None:
        replace(source, target)
        if Path(target).suffix == ".ckpt" and happens("renamed"):
            os.kill(os.getpid(), number)

    os.replace = renamed
    train(config)


@pytest.fixture(scope="module")
def server():
    """Where the trainings fork from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kits.train", "kits.callbacks", "kits.stages", "kits.data.datamodule", "monai.transforms", __name__])
    return context


@pytest.fixture(scope="module")
def fit(server, kits_tree: Path, tmp_path_factory: pytest.TempPathFactory):
    """`fit(name, overrides, event, count)` trains in a run folder, or goes on where it holds a run; (folder, exit code)."""
    folder = tmp_path_factory.mktemp("runs")
    common = [f"data.root={kits_tree}", f"data.cache={folder / 'cache'}"]
    prepare(compose("train", [*TINY, *common])["data"])

    def run(name: str, overrides: list[str], event: str = "", count: int = 0, number: int = signal.SIGKILL) -> tuple[Path, int]:
        target = folder / name
        config = (
            resumed_configuration([f"resume={target}"])
            if (target / "config.yaml").exists()
            else compose("train", [*overrides, *common, f"run_dir={target}"])
        )
        process = server.Process(target=run_and_die, args=(config, event, count, number))
        process.start()
        process.join(120)
        assert process.exitcode is not None
        return target, process.exitcode

    return run


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, and every number that was logged."""
    first, second = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (one, other))
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    for key in ("loops", "epoch", "global_step"):
        assert first[key] == second[key] or key == "loops"
    best = [torch.load(folder / "best.ckpt", weights_only=True)["state_dict"] for folder in (one, other)]
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()


def test_a_run_that_was_killed_again_and_again_ends_as_one_that_never_was(fit) -> None:
    straight, code = fit("straight", TINY)
    assert code == 0
    kills = [("step", 2), ("step", 4), ("write", 2), ("validation", 1), ("renamed", 2), ("write", 1), ("step", 3)]
    for event, count in kills:
        folder, code = fit("killed", TINY, event, count)
        assert code == -signal.SIGKILL, (event, count)
    folder, code = fit("killed", TINY)
    assert code == 0
    assert_same_run(straight, folder)
    assert not list(folder.glob(".*.ckpt"))
