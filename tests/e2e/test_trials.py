"""Real multiruns of tiny trainings: trials that fail, are stopped, go on and are pruned; other people's launchers."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kits.config.composing import compose
from tests.conftest import prepare
from tests.e2e.test_whole_way import COARSE, SMALL

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def common(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What every trial has: one epoch of a tiny coarse network on a cache that is there already."""
    cache = tmp_path_factory.mktemp("trials") / "cache"
    overrides = [*COARSE, *SMALL, f"data.root={kits_tree}", "sampling.patches_per_epoch=4"]
    prepare(compose("train", [*overrides, f"data.cache={cache}"])["data"])
    return [*overrides, "trainer.max_epochs=1", f"data.cache={cache}"]


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    """The command itself, as a user starts it."""
    line = [sys.executable, "-m", "kits.train", "-m", *arguments, f"hydra.sweep.dir={folder}"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of the command."""
    process = started(folder, *arguments)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, said


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of sweep.csv."""
    return list(csv.DictReader((folder / "sweep.csv").read_text(encoding="utf-8").splitlines()))


def test_a_grid_records_a_failure_goes_on_and_skips_what_is_done(common: list[str], tmp_path: Path) -> None:
    broken, folder = tmp_path / "broken", tmp_path / "sweep"
    broken.mkdir()
    (broken / "index.json").write_text("{}")  # only a training that opens it finds out
    *most, cache = common
    arguments = [*most, f"{cache},{broken}", "hydra.launcher.n_jobs=2"]
    code, said = run(folder, *arguments)
    good, bad = table(folder)
    assert code == 1, "one has failed"
    assert str(broken) in said.splitlines()[-1]
    assert (good["status"], good["steps"], good["epoch"], bad["status"]) == ("done", "4", "0", "failed")
    assert float(good["val/score"]) == float(good["score"]) > 0
    assert float(good["peak_memory_gib"]) > 0.1
    assert str(broken) in bad["error"]
    assert (Path(good["run_dir"]) / "best.ckpt").is_file()
    assert (folder / "sweep.png").is_file()
    before = [(Path(row["run_dir"]) / "train.log").stat().st_mtime_ns for row in (good, bad)]
    run(folder, *arguments)
    after = [(Path(row["run_dir"]) / "train.log").stat().st_mtime_ns for row in (good, bad)]
    assert after[0] == before[0]
    assert after[1] > before[1], "what failed is tried again"
    code, said = run(folder, *arguments, "optimizer.lr=0.02")
    assert code == 1
    assert "holds another sweep's trials (optimizer.lr=0.01 optimizer.lr=0.02)" in said


@pytest.mark.parametrize("sweeper", [[], ["hydra/sweeper=tpe", "hydra.sweeper.n_trials=1"]])
def test_a_sweep_that_is_ended_stops_and_records_its_trial_and_goes_on_with_it(
    common: list[str], tmp_path: Path, sweeper: list[str]
) -> None:
    if sweeper:
        pytest.importorskip("optuna")
    longer = ["trainer.max_epochs=30", "callbacks.early_stopping.patience=1", "seed=choice(0)", *sweeper]
    process = started(tmp_path, *common, *longer)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "seed-0" / "last.ckpt").exists():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert said == "kits.train: interrupted\n"
    assert [row["status"] for row in table(tmp_path)] == ["interrupted"]
    assert run(tmp_path, *common, *longer)[0] == 0
    assert [row["status"] for row in table(tmp_path)] == ["done"]
    assert '"resumed"' in (tmp_path / "seed-0" / "manifest.json").read_text(encoding="utf-8")


def test_a_search_prunes_what_falls_behind_and_stops_its_training(common: list[str], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    # This seed draws 4e-3, which learns, and then 2e-6, which does not.
    search = ["hydra/sweeper=tpe", "hydra.sweeper.n_trials=2", "hydra.sweeper.seed=9", "hydra.launcher.poll_seconds=0.1"]
    search += ["hydra.sweeper.pruning.n_startup_trials=1", "hydra.sweeper.pruning.n_warmup_steps=1"]
    longer = ["sampling.patches_per_epoch=12", "trainer.max_epochs=15", "callbacks.early_stopping.patience=15"]
    code, said = run(tmp_path, *common, *longer, *search, "optimizer.lr=tag(log,interval(1e-7,1e-1))")
    assert (code, said) == (0, "")
    learning, idle = table(tmp_path)
    assert (learning["status"], idle["status"]) == ("done", "pruned")
    assert float(learning["score"]) > float(idle["score"])
    assert int(learning["steps"]) == 12 * 15 > int(idle["steps"])
    assert float(learning["optimizer.lr"]) == pytest.approx(3.57e-3, rel=0.01)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_train_into_the_folder_of_each_trial(common: list[str], tmp_path: Path, launcher: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    code, said = run(tmp_path, *common, "seed=choice(0)", f"hydra/launcher={launcher}")
    assert code == 0, said
    assert (tmp_path / "0" / "best.ckpt").is_file()
    assert os.listdir(tmp_path / "0").count("manifest.json") == 1
