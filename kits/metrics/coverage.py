"""Coverage of kidneys and tumors by out-of-fold ROIs: one table, with intervals of the means."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan, prod
from pathlib import Path
from typing import Any

from kits.config.schema.evaluation import Bootstrap
from kits.core.plain_files import csv_text
from kits.data.roi_boxes import read_boxes
from kits.io import write_json, write_text
from kits.metrics.summary import Draws, describe


def write_coverage(boxes: Path, bootstrap: Bootstrap) -> str:
    """Write `cases.csv`, `summary.json` and `table.txt` beside a `boxes.json`, and return the table.

    Raises:
        KitsError: the file is none, or the folder cannot be written.
    """
    cases = {case: figures_of(found) for case, found in sorted(read_boxes(boxes)["cases"].items())}
    columns = list(next(iter(cases.values())))
    draws = Draws(len(cases), **dict(bootstrap))
    summary = {name: describe([figures[name] for figures in cases.values()], draws) for name in columns}
    table = readable(cases, summary, draws.level)
    rows = [[case, *("" if value != value else value for value in figures.values())] for case, figures in cases.items()]
    write_text(boxes.with_name("cases.csv"), csv_text(["case", *columns], rows))
    write_json(boxes.with_name("summary.json"), {"cases": len(cases), "columns": summary, "intervals": bootstrap.model_dump()})
    write_text(boxes.with_name("table.txt"), table)
    return table


def figures_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Measure what share of a case's kidney and tumor its ROIs hold, their number and size.

    Shares of ROIs that overlap add up: the fine stage reads each. A region without voxels has no coverage (NaN).
    """
    extent = [size * step for size, step in zip(found["shape"], found["spacing"], strict=True)]
    sizes = [prod(high - low for low, high in zip(*corners, strict=True)) for corners in found["boxes_mm"]]
    covered = found.get("coverage") or {}
    return {
        "kidney_in_rois": covered.get("kidney", nan),
        "tumor_in_rois": covered.get("tumor", nan),
        "rois": float(len(sizes)),
        "rois_of_scan": sum(sizes) / prod(extent),
        "nothing_found": float(found.get("whole_body", nan)),
    }


def readable(cases: Mapping[str, Mapping[str, float]], summary: Mapping[str, Mapping[str, Any]], level: float) -> str:
    """Lay out one line a case, then the means and their intervals."""
    interval = f"{100 * level:g} % from"
    first = max(len(name) for name in [*cases, interval])
    rows: dict[str, Mapping[str, float | None]] = dict(cases)
    for title, key in (("mean", "mean"), (interval, "low"), ("to", "high")):
        rows[title] = {name: figures[key] for name, figures in summary.items()}
    lines = [" " * first + "".join(f"  {name}" for name in summary)]
    for title, figures in rows.items():
        cells = (
            f"  {'-' if value is None or value != value else f'{value:.4f}':>{len(name)}}" for name, value in figures.items()
        )
        lines.append(f"{title:<{first}}" + "".join(cells))
    return "\n".join(lines) + "\n"
