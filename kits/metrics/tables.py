"""Tables of an evaluation: `cases.csv` and `tumors.csv` with everything, and one to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from kits.core.errors import printable
from kits.core.labels import HIERARCHICAL_REGIONS
from kits.core.plain_files import csv_text
from kits.metrics.case import COUNTS, Column
from kits.metrics.summary import Row, is_dice


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
