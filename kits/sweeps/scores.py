"""What a training has written so far, read from the metrics.csv of its run folder."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from kits.runs.folder import METRICS


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv without their empty cells; none where there is no file yet.

    The training may be writing while this reads: a cell that is cut off is left out.
    """
    try:
        text = (run_dir / METRICS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # A last line without its end is still being written.
    lines = text[: text.rfind("\n") + 1].splitlines()
    rows = [{name: number(cell) for name, cell in row.items() if name} for row in csv.DictReader(lines)]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def number(cell: str | list[str] | None) -> float | None:
    """The cell as a number; None where it is empty or no number."""
    if not isinstance(cell, str):
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def scored(rows: list[dict[str, float]], score: str) -> list[dict[str, float]]:
    """The rows that hold a score that can be compared."""
    return [row for row in rows if math.isfinite(row.get(score, math.nan))]


def best_row(rows: list[dict[str, float]], score: str) -> dict[str, float]:
    """The row with the largest score, the first of equals; empty where no epoch was validated."""
    return max(scored(rows, score), key=lambda row: row[score], default={})


def steps(rows: list[dict[str, float]]) -> int:
    """Optimizer steps that were logged (`step` counts from 0)."""
    return int(max((row["step"] + 1 for row in rows if "step" in row), default=0))
