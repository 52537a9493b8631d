"""Lightning's options of the trainer are keys like others, and a training does what they say."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.data.preparation import prepare
from kits.train import train

TINY = [
    "stage=coarse",
    "split=paper",
    "data.roi_rule.min_voxels=100",
    "data.coarse_size=32",
    "data.workers=1",
    "data.loader_workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "sampling.patch=[8,32,32]",
    "sampling.batch_size=2",
    "sampling.patches_per_epoch=8",
    "model.widths=[4,8]",
    "model.strides=[[1,2,2],[2,2,2]]",
    "model.kernels=[[3,3,3],[3,3,3]]",
]


@pytest.fixture(autouse=True)
def algorithms_as_before() -> Iterator[None]:
    """trainer.deterministic holds for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def places(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A prepared cache of the small tree."""
    given = [*TINY, f"data.root={kits_tree}", f"data.cache={tmp_path_factory.mktemp('cache') / 'cache'}"]
    prepare(compose("train", given)["data"])
    return given


def trained(folder: Path, overrides: list[str]) -> tuple[int, list[int]]:
    """Optimizer steps of the whole training, and the epochs with a score."""
    train(checked("train", [*overrides, f"run_dir={folder}"]))
    rows = csv.DictReader((folder / "metrics.csv").read_text(encoding="utf-8").splitlines())
    steps = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["steps"]
    return steps, [int(row["epoch"]) for row in rows if row["val/score"]]


def test_batches_are_accumulated_every_second_epoch_is_validated_and_the_profile_is_a_file(
    places: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rare = ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2"]
    quiet = ["trainer.profiler=simple", "trainer.enable_progress_bar=false", "scheduler=plateau", "scheduler.patience=1"]
    # 4 batches an epoch; the plateau is asked where there is a score
    assert trained(tmp_path / "run", [*places, *rare, *quiet]) == (8, [1, 3])
    assert "run_training_epoch" in (tmp_path / "run" / "fit-profile.txt").read_text(encoding="utf-8")
    said = capfd.readouterr()
    assert "Epoch" not in said.out + said.err


def test_a_training_ends_at_max_steps_and_is_validated_within_an_epoch(places: list[str], tmp_path: Path) -> None:
    short = ["trainer.max_steps=6", "trainer.max_epochs=9", "trainer.val_check_interval=0.5", "scheduler=cosine"]
    exact = ["trainer.deterministic=true", "trainer.detect_anomaly=true", "trainer.gradient_clip_algorithm=value"]
    assert trained(tmp_path / "run", [*places, *short, *exact]) == (6, [0, 0, 1])


def test_a_validation_after_more_batches_than_there_are_is_one_line(places: list[str], tmp_path: Path) -> None:
    with pytest.raises(KitsError, match=r"^trainer\.val_check_interval=7: an epoch has 4 batches; give at most that$"):
        trained(tmp_path / "run", [*places, "trainer.val_check_interval=7", "trainer.max_epochs=2"])
