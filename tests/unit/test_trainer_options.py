"""Lightning's options of the trainer are keys like others, and a training does what they say."""

import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.runs.folder import resumed_options
from kits.train import train
from kits.training.trainer import quieten
from tests.conftest import prepare

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


class Slow(pl.Callback):
    """Steps of a second."""

    def on_train_batch_end(self, *of_training: object) -> None:
        time.sleep(1)


class Stop(pl.Callback):
    """The end after the first epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, *of_training: object) -> None:
        trainer.should_stop = True


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


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["val_check_interval=7"], r"trainer\.val_check_interval=7: an epoch has 4 batches; give at most that"),
        (
            ["limit_train_batches=0"],
            r"trainer\.limit_train_batches=0: give a share above 0 up to 1\.0, or a whole .*",
        ),
        (["limit_train_batches=0.1"], r"trainer\.limit_train_batches=0\.1: leaves no batch of an epoch to learn from; .*"),
        (["limit_val_batches=0.1"], r"trainer\.limit_val_batches=0\.1: leaves none of a process's 1 validation cases; .*"),
        (["max_time='00:00:00:00'"], r"trainer\.max_time=00:00:00:00: give a text DD:HH:MM:SS in quotes, above 0, or null"),
        (["check_val_every_n_epoch=4"], r"trainer\.check_val_every_n_epoch=4: no epoch would be validated, .*"),
        (["max_steps=3"], r"trainer\.max_steps=3: ends before step 4, .*"),
        (
            ["max_steps=5", "check_val_every_n_epoch=2", "val_check_interval=0.5"],
            r"trainer\.max_steps=5: ends before step 6, .*",
        ),
    ],
)
def test_what_would_leave_no_checkpoint_is_one_line_and_no_folder(
    places: list[str], tmp_path: Path, given: list[str], told: str
) -> None:
    with pytest.raises(KitsError, match=f"^{told}$"):
        trained(tmp_path / "run", [*places, *(f"trainer.{one}" for one in given), "trainer.max_epochs=2"])
    assert not (tmp_path / "run").exists()


def test_without_validation_the_last_weights_are_kept_and_that_is_told(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, bare = tmp_path / "run", ["trainer.limit_val_batches=0", "trainer.enable_progress_bar=false"]
    options = checked("train", [*places, *bare, "trainer.max_epochs=2", f"run_dir={run}"])
    assert math.isnan(train(options))
    assert capsys.readouterr().out.splitlines()[-2] == f"nothing was validated, the last weights: {run / 'best.ckpt'}"
    assert_last_weights(run, step=8)
    train(resumed_options([f"resume={run}", "trainer.max_epochs=3"]))
    assert_last_weights(run, step=12)
    with pytest.raises(
        KitsError, match=r"^scheduler\.name=plateau: waits for validation scores, trainer\.limit_val_batches=0; .*"
    ):
        checked("train", [*places, *bare, "scheduler=plateau"])
    own = ["scheduler=own", "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"]
    with pytest.raises(KitsError, match=r"^scheduler: waits for validation scores, trainer\.limit_val_batches=0; .*"):
        trained(tmp_path / "own", [*places, *bare, *own])
    assert not (tmp_path / "own").exists()


def assert_last_weights(run: Path, step: int) -> None:
    """best.ckpt holds the weights of last.ckpt, of that step."""
    best, last = (torch.load(run / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["global_step"] == last["global_step"] == step
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())


def test_lightnings_quick_ways_are_told_by_their_names_here(places: list[str]) -> None:
    with pytest.raises(KitsError, match=r"^trainer\.fast_dev_run: no such key; give debug=fast$"):
        checked("train", [*places, "+trainer.fast_dev_run=true"])
    with pytest.raises(KitsError, match=r"^trainer\.overfit_batches: no such key; give debug=overfit$"):
        checked("train", [*places, "+trainer.overfit_batches=1"])


@pytest.mark.parametrize(
    ("given", "ended", "again"),
    [
        ([], "at step 12, in epoch 3: trainer.max_epochs=3", "trainer.max_epochs=3; give trainer.max_epochs above 3 to train on"),
        (
            ["callbacks.early_stopping.patience=0", "trainer.val_check_interval=0.5", "optimizer.lr=1e-9"],
            "at step 4, in epoch 1: validations without a better val/score: 1 (callbacks.early_stopping.patience=0)",
            "give callbacks.early_stopping.patience above 1 to train on",
        ),
        (
            ["trainer.max_time='00:00:00:01'", "+callbacks.slow._target_=tests.unit.test_trainer_options.Slow"],
            "at step 1, in epoch 1: trainer.max_time is over",
            "begin a new run to train longer",
        ),
        (
            ["+callbacks.stop._target_=tests.unit.test_trainer_options.Stop"],
            "at step 4, in epoch 1: a callback",
            "begin a new run",
        ),
        (["trainer.max_steps=5"], "at step 5, in epoch 2: trainer.max_steps=5", "a run that counts steps cannot go on"),
    ],
)
def test_a_training_says_why_it_ended_and_so_does_whoever_would_go_on(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], ended: str, again: str
) -> None:
    run = tmp_path / "run"
    trained(run, [*places, "trainer.max_epochs=3", "trainer.enable_progress_bar=false", *given])
    told = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["ended"]
    assert told.startswith(f"ended {ended}")
    assert capsys.readouterr().out.splitlines()[-1] == told
    with pytest.raises(KitsError) as caught:
        train(resumed_options([f"resume={run}"]))
    assert again in str(caught.value)


class Counting(pl.Callback):
    """A part with a state, whose shape depends on the code."""

    kept = "one"

    def state_dict(self) -> dict[str, int]:
        return {self.kept: 1}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        assert state_dict[self.kept]


def test_torchs_profiler_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    quieten()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        torch.ones(3).sum()
    assert not capfd.readouterr().err


def test_a_part_whose_code_has_changed_since_is_told_when_its_run_goes_on(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, own = tmp_path / "run", "+callbacks.mine._target_=tests.unit.test_trainer_options.Counting"
    trained(run, [*places, "trainer.max_epochs=1", own])
    monkeypatch.setattr(Counting, "kept", "another")
    with pytest.raises(KitsError, match=r"^resume=.*run: last\.ckpt does not fit .*KeyError: 'another'\); undo what has changed"):
        train(resumed_options([f"resume={run}", "trainer.max_epochs=2"]))
    monkeypatch.undo()
    train(resumed_options([f"resume={run}", "trainer.max_epochs=2"]))


def test_a_time_that_ends_before_a_validation_is_told_as_it_is(places: list[str], tmp_path: Path) -> None:
    late = ["trainer.max_time='00:00:00:01'", "trainer.max_epochs=9", "trainer.check_val_every_n_epoch=9"]
    slow = "+callbacks.slow._target_=tests.unit.test_trainer_options.Slow"
    with pytest.raises(KitsError, match=r"ended at step 1, .*: trainer\.max_time is over, with nothing validated and so without"):
        trained(tmp_path / "run", [*places, *late, slow])
    assert not json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["finished"]
