"""`debug=fast` and `debug=overfit` train for real, with a scheduler that waits for the validation score."""

import json
from pathlib import Path

import pytest
import torch

from kits.config import plain
from kits.config.composing import checked
from kits.models.checkpoint import load_network
from kits.train import train
from tests.conftest import prepare

TINY = [
    "stage=coarse",
    "split=paper",
    "data.coarse_size=32",
    "data.roi_rule.min_voxels=100",
    "data.workers=1",
    "data.loader_workers=0",
    "trainer.accelerator=cpu",
    "sampling.patch=[8,32,32]",
    "model.width=4",
    "model.depth=2",
    "model.spacing=[4,3,3]",
    "model.in_plane=null",
]


@pytest.fixture(scope="module")
def common(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a small training, on a cache that is ready."""
    cache = tmp_path_factory.mktemp("debug") / "cache"
    prepare(checked_data(kits_tree, cache))
    return [*TINY, f"data.cache={cache}"]


def checked_data(tree: Path, cache: Path) -> dict:
    """The group `data` as kits.prepare gets it."""
    scaled = [override for override in TINY if override.startswith(("data.", "split"))]
    return plain(checked("prepare", [*scaled, f"data.root={tree}", f"data.cache={cache}"]).data)


def test_overfit_learns_one_case_and_a_plateau_lowers_the_rate(common: list[str], tmp_path: Path) -> None:
    plateau = ["scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-12", "scheduler.min_lr=0"]
    size = ["sampling.batch_size=1", "sampling.patches_per_epoch=1", "trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
    train(checked("train", [*common, "debug=overfit", *plateau, *size, f"run_dir={tmp_path / 'run'}"]))
    split = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["split"]
    assert split["train"] == split["validation"]
    assert len(split["train"]) == 1
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    # Nothing is learned at this rate, so the score of the first epoch is the best one and each later epoch halves the rate.
    assert state["lr_schedulers"][0]["_last_lr"] == pytest.approx([1e-12 / 4])


def test_fast_makes_a_checkpoint_that_an_older_schedule_does_not_spoil(common: list[str], tmp_path: Path) -> None:
    train(checked("train", [*common, "debug=fast", "scheduler=cosine", f"run_dir={tmp_path / 'run'}"]))
    best = tmp_path / "run" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    assert content["hyper_parameters"]["debug"] == "fast"
    # As checkpoints were before the group scheduler: what predicts does not ask for it.
    del content["hyper_parameters"]["scheduler"]
    content["hyper_parameters"]["optimizer"]["schedule"] = "cosine"
    torch.save(content, tmp_path / "older.ckpt")
    network, _ = load_network(tmp_path / "older.ckpt", "coarse", "cpu")
    assert network(torch.zeros(1, 1, 4, 32, 32)).shape == (1, 1, 4, 32, 32)
