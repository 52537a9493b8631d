"""The table of a sweep: a row a trial, as sweep.csv and as a few lines for the terminal."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from kits.io import write_text
from kits.sweeps.trial import RECORD, read_record

LAST = ("steps", "seconds", "seconds_per_step", "peak_memory_mb", "error", "run_dir")


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """The records of all trials in a sweep's folder, with their run folder, by name."""
    folders = sorted((path.parent for path in folder.glob(f"*/{RECORD}")), key=natural)
    records = {run_dir: read_record(run_dir) for run_dir in folders}
    return [{**record, "run_dir": str(run_dir)} for run_dir, record in records.items() if record is not None]


def natural(path: Path) -> list[tuple[int, str]]:
    """For sorting: seed-2 before seed-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def write_table(path: Path, records: list[dict[str, Any]]) -> None:
    """Write sweep.csv: parameters, status, best score, the other scores of that epoch, time and memory of every trial."""
    parameters = union(record["parameters"] for record in records)
    scores = union(record.get("scores", {}) for record in records)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["trial", *parameters, "status", "score", "epoch", *scores, *LAST], extrasaction="ignore")
    writer.writeheader()
    for record in records:
        writer.writerow({**record, **record["parameters"], **record.get("scores", {})})
    write_text(path, buffer.getvalue())


def union(rows: Any) -> list[str]:
    """The keys of all rows in the order in which they first come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def line(record: dict[str, Any]) -> str:
    """One trial for the terminal."""
    score = "" if record.get("score") is None else f" {record['score']:.4f} (epoch {record['epoch']})"
    reason = f": {record['error']}" if record.get("error") else ""
    seconds = f", {record['seconds']:.0f} s" if "seconds" in record else ""
    return f"{record['trial']}: {record['status']}{score}{reason}{seconds}"
