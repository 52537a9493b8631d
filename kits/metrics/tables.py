"""Tables with everything, `cases.csv` and `tumors.csv`, and to read: of an evaluation and of ROIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan, prod
from pathlib import Path
from typing import Any

from kits.config.schema.evaluation import Bootstrap
from kits.core.errors import printable
from kits.core.labels import HIERARCHICAL_REGIONS
from kits.core.plain_files import csv_text
from kits.data.roi_boxes import read_boxes
from kits.io import write_json, write_text
from kits.metrics.case import COUNTS, Column
from kits.metrics.summary import Draws, Row, describe, is_dice


def cases_csv(rows: Sequence[Row], documented: Mapping[str, Column]) -> str:
    """Write a line a case: every column (empty where there is no figure), counts of tumors, the status."""
    lines = [
        [row.case, *(_plain(row.figures.values[name]) for name in documented), *row.figures.counts.values(), row.status]
        for row in rows
    ]
    return csv_text(["case", *documented, *COUNTS, "status"], lines)


def tumors_csv(rows: Sequence[Row]) -> str:
    """Write one line a tumor: whose it is, its size, how much the other side covers, and the verdict."""
    lines = [
        [row.case, side, f"{one.volume_ml:.4f}", f"{one.diameter_mm:.2f}", f"{one.overlap:.4f}", int(one.matched)]
        for row in rows
        for side, tumors in (("truth", row.figures.true_tumors), ("prediction", row.figures.predicted_tumors))
        for one in tumors
    ]
    return csv_text(["case", "side", "volume_ml", "diameter_mm", "overlap", "matched"], lines)


def readable(rows: Sequence[Row], documented: Mapping[str, Column], summary: Mapping[str, Any]) -> str:
    """Write Dice, surface Dice, HD95 and tumors for a reader, then what is wrong with which case."""
    groups = {
        "Dice": [name for name, column in documented.items() if is_dice(name, column)],
        "surface Dice": [name for name in documented if name.endswith("_surface_dice")],
        "HD95 mm": [f"{region}_hd95_mm" for region in HIERARCHICAL_REGIONS if f"{region}_hd95_mm" in documented],
    }  # `cases.csv` has the other columns too
    groups = {title: names for title, names in groups.items() if names}
    short = {name: name.removesuffix("_surface_dice").removesuffix("_hd95_mm") for names in groups.values() for name in names}
    widths = {name: max(len(title), 6) + 1 for name, title in short.items()}
    figures, level = summary["columns"], f"{100 * summary['intervals']['level']:g} %"
    first = max(len(name) for name in [*(printable(row.case) for row in rows), f"{level} from"])

    def line(title: str, cells: Mapping[str, str]) -> str:
        parts = ["".join(f"{cells[name]:>{widths[name]}}" for name in names) for names in groups.values()]
        return f"{title:<{first}} " + " ".join(parts)

    def numbers(values: Mapping[str, float | None]) -> dict[str, str]:
        digits = {name: 1 if name.endswith("_mm") else 4 for name in short}
        return {name: "" if values[name] is None else f"{values[name]:.{digits[name]}f}" for name in short}

    titles = [f"  {title:-^{sum(widths[name] for name in names) - 1}}" for title, names in groups.items()]
    lines = [" " * first + "".join(titles), line("case", short) + "  tumors"]
    for row in rows:
        true, found, predicted, right = row.figures.counts.values()
        tumors = f"  {found}/{true}" + (f" +{predicted - right}" if predicted > right else "")  # `+1`: one where there is none
        lines.append(line(printable(row.case), numbers(row.figures.values)) + tumors)
    for title, key in (("mean", "mean"), (f"{level} from", "low"), ("to", "high")):
        values = {name: figures[name][key] for name in short}
        if any(value is not None for value in values.values()):
            lines.append(line(title, numbers(values)))
    lines += ["", *_detection(summary["tumors"], level)]
    missing = sum(not row.scored for row in rows)
    if missing:
        lines.append(
            f"{missing} of {len(rows)} cases have no usable prediction and count as 0, their HD95 as the scan's diagonal"
        )
    lines += [printable(f"{row.case}: {row.status}") for row in rows if row.status != "ok"]
    return "\n".join(lines) + "\n"


def _detection(tumors: Mapping[str, Any], level: str) -> list[str]:
    """Return a line each for recall and precision, by size after that of all."""
    lines = []
    for name, what in (("recall", "true tumors found"), ("precision", "predicted tumors right")):
        parts = {size: entry for size, entry in tumors[name].items() if entry["of"]}
        if "all" not in parts:
            lines.append(f"{what}: there are none")
            continue
        every = parts.pop("all")
        interval = "" if every["low"] is None else f" ({level} {every['low']:.2f} to {every['high']:.2f})"
        sizes = "".join(f"; {size} {entry['matched']}/{entry['of']}" for size, entry in parts.items())
        lines.append(f"{what}: {every['matched']} of {every['of']}, {name} {every['share']:.2f}{interval}{sizes}")
    return lines


def _plain(value: float) -> str:
    return f"{value:.6f}" if isfinite(value) else ""


def write_coverage(boxes: Path, bootstrap: Bootstrap) -> str:
    """Write `cases.csv`, `summary.json` and `table.txt` beside a `boxes.json`, and return the table.

    Raises:
        KitsError: the file is none, or the folder cannot be written.
    """
    cases = {case: figures_of(found) for case, found in sorted(read_boxes(boxes)["cases"].items())}
    columns = list(next(iter(cases.values())))
    draws = Draws(len(cases), **dict(bootstrap))
    summary = {name: describe([figures[name] for figures in cases.values()], draws) for name in columns}
    table = coverage_table(cases, summary, draws.level)
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


def coverage_table(cases: Mapping[str, Mapping[str, float]], summary: Mapping[str, Mapping[str, Any]], level: float) -> str:
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
