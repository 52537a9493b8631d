"""Processes that train together by gloo follow the loss curve and have the scores of one process with the same global batch."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from tests.ranks import RUNS

PROCESSES = {name: ranks for group in RUNS.values() for name, (ranks, _) in group.items()}
GROUP = {name: group for group, runs in RUNS.items() for name in runs}
# The others take seconds more.
ALL = [pytest.param(name, marks=() if GROUP[name] == "coarse" else pytest.mark.slow) for name in PROCESSES]
SEVERAL = [parameter for parameter in ALL if PROCESSES[str(parameter.values[0])] > 1]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By name of a run its folder; the first that is asked for trains all runs of its group."""

    @cache
    def runs(group: str) -> Path:
        folder = tmp_path_factory.mktemp(group)
        command = [sys.executable, "-m", "tests.ranks", str(folder), group]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        for advice in ("UserWarning", "It is recommended", "Grad strides"):
            assert advice not in done.stderr, done.stderr
        return folder

    return lambda name: runs(GROUP[name]) / name


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def curve(run: Path) -> np.ndarray:
    """The loss of every step."""
    return np.array([float(row["train/loss"]) for row in rows(run) if row["train/loss"]])


def scored(run: Path) -> list[tuple[str, ...]]:
    """(case, epoch, network) of every scoring by any process."""
    return [tuple(line.split()) for path in run.glob("scored*.txt") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("alone", "several"),
    [
        ("coarse1", "coarse2"),
        pytest.param("coarse1", "coarse4", marks=pytest.mark.slow),
        pytest.param("fine1", "fine2", marks=pytest.mark.slow),
    ],
)
def test_the_loss_curve_is_that_of_one_process_with_the_same_global_batch(
    folder_of: Callable[[str], Path], alone: str, several: str
) -> None:
    expected, found = curve(folder_of(alone)), curve(folder_of(several))
    assert len(expected) == 6
    assert len(set(expected)) == 6
    # float32: sums in another order; and Adam's steps hardly depend on how large a gradient is, so they keep small differences.
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", SEVERAL)
def test_every_case_is_scored_once_an_epoch_by_the_same_network(folder_of: Callable[[str], Path], name: str) -> None:
    cases = sorted(json.loads((folder_of(name) / "manifest.json").read_text(encoding="utf-8"))["split"]["validation"])
    assert len(cases) == 3  # no multiple of two processes, and fewer than four
    found = scored(folder_of(name))
    for epoch in "012":
        assert sorted(case for case, when, _ in found if when == epoch) == cases
        assert len({network for _, when, network in found if when == epoch}) == 1


@pytest.mark.parametrize("name", ALL)
def test_the_logged_scores_are_those_of_one_process_exactly(folder_of: Callable[[str], Path], name: str) -> None:
    alone = json.loads((folder_of(name) / "scores.json").read_text(encoding="utf-8"))
    best = max((row for row in rows(folder_of(name)) if row["val/score"]), key=lambda row: float(row["val/score"]))
    for score in next(iter(alone.values())):
        expected = fmean(of_case[score] for of_case in alone.values())
        assert np.float32(best[f"val/{score}"]) == np.float32(expected), score


@pytest.mark.parametrize("name", SEVERAL)
def test_only_the_first_process_prints_and_writes(folder_of: Callable[[str], Path], name: str) -> None:
    said = [(folder_of(name) / f"stdout{rank}.txt").read_text(encoding="utf-8") for rank in range(PROCESSES[name])]
    assert f"3 training and 3 validation cases, {PROCESSES[name]} processes" in said[0]
    assert "best val/score" in said[0]
    assert not any(said[1:])
    assert len([row for row in rows(folder_of(name)) if row["val/score"]]) == 3
    kept = {path.name for path in (folder_of(name)).iterdir() if path.suffix in (".ckpt", ".csv", ".json")}
    assert kept == {"best.ckpt", "last.ckpt", "cases.csv", "confusion.csv", "manifest.json", "metrics.csv", "scores.json"}


@pytest.mark.slow
def test_each_case_is_predicted_once(folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("fine1").parent
    cases = {path.name for path in (folder / "tree").iterdir()}
    output = folder / "predicted"
    assert {path.name.removesuffix(".nii.gz") for path in output.glob("*.nii.gz")} == cases
    told = [(folder / f"predicted{rank}.txt").read_text(encoding="utf-8").split() for rank in range(2)]
    assert sorted(told[0] + told[1]) == sorted(cases)
    assert len(told[0]) == len(told[1])
    assert set(json.loads((output / "report.json").read_text(encoding="utf-8"))["cases"]) == cases
