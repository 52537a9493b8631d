"""Records of trials: trial.json in each run folder, and sweep.csv and sweep.png of all."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

from kits.core.plain_files import csv_text, read_object
from kits.runs.folder import METRICS, read_manifest

RECORD, TABLE, PICTURE, JOURNAL = "trial.json", "sweep.csv", "sweep.png", "optuna.journal"
FORM = {"number": int, "status": str, "parameters": {str: str}, "fixed": [str], "overrides": [str], "scores": {str: float}}
# What a trial can have come to.
DONE, FAILED, INTERRUPTED, RUNNING, PRUNED = "done", "failed", "interrupted", "running", "pruned"


class Trial(NamedTuple):
    """A trial of a sweep.

    Attributes:
        parameters: its own overrides by key.
        fixed: those that all trials have.
        overrides: both.
    """

    number: int
    run_dir: Path
    parameters: dict[str, str]
    fixed: list[str]
    overrides: list[str]


def scored_epochs(run_dir: Path, score: str) -> list[dict[str, float]]:
    """Read the rows of metrics.csv that hold a score, as far as they are written."""
    try:
        text = (run_dir / METRICS).read_text(encoding="utf-8")
        # A last line without its end is still being written.
        table = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
        rows = [{name: float(cell) for name, cell in row.items() if cell} for row in table]
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


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """Read the records of all trials in a sweep's folder, each with its run folder, by number."""
    found = [
        {**record, "run_dir": str(path.parent)} for path in folder.glob(f"**/{RECORD}") if (record := read_object(path, FORM))
    ]
    return sorted(found, key=lambda record: (record["number"], record["run_dir"]))


def update(folder: Path, trial: Trial, status: str, error: str, score: str) -> str:
    """Write what has become of a trial into its record, the table and the picture; it in one line."""
    # NumPy and SimpleITK come with these, and a refusal needs neither.
    from kits.hydra_plugins.sweep_picture import draw_sweep
    from kits.io import write_json, write_text

    own = trial._asdict() | {"run_dir": trial.run_dir.name, "status": status, "error": error}
    record = own | results(trial.run_dir, score)
    changed = read_object(trial.run_dir / RECORD) != record
    if changed:
        write_json(trial.run_dir / RECORD, record)
    records = read_trials(folder)
    if changed:
        parameters, scores = (dict.fromkeys(key for each in records for key in each[part]) for part in ("parameters", "scores"))
        effort = ("steps", "seconds", "peak_memory_gib", "error", "run_dir")
        columns = [*parameters, "status", "score", "epoch", *scores, *effort]
        rows = [each | each["parameters"] | each["scores"] for each in records]
        write_text(folder / TABLE, csv_text(columns, [[row.get(column) for column in columns] for row in rows]))
        draw_sweep(folder / PICTURE, records, score)
    scored = [each for each in records if each["score"] is not None]
    best = max(scored, key=lambda each: each["score"], default=None)
    reached = "" if record["score"] is None else f", {score} {record['score']:.4f} in epoch {record['epoch']}"
    return f"{trial.run_dir.name}: {error or status}{reached}" + (f"; best of {len(scored)}: {best['run_dir']}" if best else "")
