"""Records of trials: trial.json in each run folder, and sweep.csv and sweep.png of all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kits.core.plain_files import csv_text, read_numbers
from kits.runs.folder import METRICS, read_manifest

MULTIRUN = "multirun.yaml"  # which Hydra writes before it composes a trial
RECORD, TABLE, PICTURE, JOURNAL = "trial.json", "sweep.csv", "sweep.png", "optuna.journal"
# What a trial can have come to.
DONE, FAILED, INTERRUPTED, RUNNING, PRUNED = "done", "failed", "interrupted", "running", "pruned"


class Trial(BaseModel):
    """A trial of a sweep, as its record holds it; the record names its own folder.

    Attributes:
        parameters: its own overrides by key.
        fixed: those that all trials have.
        overrides: both.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    number: int
    run_dir: Path
    parameters: dict[str, str]
    fixed: list[str]
    overrides: list[str]
    status: str = RUNNING
    error: str = ""
    score: float | None = None
    epoch: int | None = None
    scores: dict[str, float] = {}
    steps: int | None = None
    seconds: float | None = None
    peak_memory_gib: float | None = None


def scored_epochs(run_dir: Path, score: str) -> list[dict[str, float]]:
    """Read the rows of metrics.csv that hold a score, as far as they are written."""
    try:
        rows = [{name: float(cell) for name, cell in row.items()} for row in read_numbers(run_dir / METRICS)]
    except (OSError, ValueError):
        return []
    return [row for row in rows if math.isfinite(row.get(score, math.nan))]


def results(run_dir: Path, score: str) -> dict[str, Any]:
    """Read how far a training came: the scores of its best epoch (of equals the first), and the effort."""
    best = max(scored_epochs(run_dir, score), key=lambda row: row[score], default={})
    manifest = read_manifest(run_dir) or {}
    return {
        "score": best.get(score),
        "epoch": int(best["epoch"]) if best else None,
        "scores": {name: value for name, value in best.items() if name.startswith("val/")},
        "steps": manifest.get("steps"),
        "seconds": manifest.get("seconds"),
        "peak_memory_gib": max(manifest.get("peak_memory_gib", {"": None}).values()),
    }


def read_trials(folder: Path) -> list[Trial]:
    """Read the records of all trials in a sweep's folder that can be read, by number."""
    found = []
    for path in folder.glob(f"**/{RECORD}"):
        with suppress(OSError, ValidationError):
            found.append(Trial.model_validate_json(path.read_bytes()).model_copy(update={"run_dir": path.parent}))
    return sorted(found, key=lambda one: (one.number, one.run_dir))


def update(folder: Path, trial: Trial, status: str, error: str, score: str) -> str:
    """Write what has become of a trial into its record, the table and the picture; it in one line."""
    # NumPy and SimpleITK come with these, and a refusal needs neither.
    from kits.hydra_plugins.sweep_picture import draw_sweep
    from kits.io import write_json, write_text

    now = trial.model_copy(update={"status": status, "error": error, **results(trial.run_dir, score)})
    trials = read_trials(folder)
    if now not in trials:
        write_json(now.run_dir / RECORD, now.model_copy(update={"run_dir": now.run_dir.name}).model_dump())
        trials = read_trials(folder)
        rows = [one.model_dump() | one.parameters | one.scores for one in trials]
        parameters, scores = [key for one in trials for key in one.parameters], [key for one in trials for key in one.scores]
        effort = ("steps", "seconds", "peak_memory_gib", "error", "run_dir")
        columns = list(dict.fromkeys([*parameters, "status", "score", "epoch", *scores, *effort]))
        write_text(folder / TABLE, csv_text(columns, [[row.get(column) for column in columns] for row in rows]))
        draw_sweep(folder / PICTURE, trials, score)
    scored = [one for one in trials if one.score is not None]
    best = max(scored, key=lambda one: one.score or 0, default=None)
    reached = "" if now.score is None else f", {score} {now.score:.4f} in epoch {now.epoch}"
    return f"{now.run_dir.name}: {error or status}{reached}" + (f"; best of {len(scored)}: {best.run_dir}" if best else "")


@contextmanager
def no_trace_of_a_refusal(folder: Path) -> Iterator[None]:
    """Leave the folder of a sweep that is refused before any trial has begun as it was."""
    there = {*folder.iterdir()} if folder.is_dir() else set()
    multirun = (folder / MULTIRUN).read_bytes() if folder / MULTIRUN in there else None
    made = [path for path in (folder / MULTIRUN, folder / JOURNAL, folder, *folder.parents) if not path.exists()]
    try:
        yield
    except Exception:
        if folder.is_dir() and {*folder.iterdir()} <= {*there, *made}:
            if multirun is not None:
                (folder / MULTIRUN).write_bytes(multirun)
            with suppress(OSError):  # something else lies in a folder above
                for path in made:
                    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise
