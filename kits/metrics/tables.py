"""Tables of an evaluation: `cases.csv` and `tumors.csv` with everything, and one to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from kits.core.errors import printable
from kits.core.labels import HIERARCHICAL_REGIONS
from kits.core.plain_files import csv_text
from kits.metrics.case import COUNTS, CaseFigures, Column
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
    groups = _groups(documented)
    figures, tumors = summary["columns"], summary["tumors"]
    level = f"{100 * summary['intervals']['level']:g} %"
    first = max(len(name) for name in [*(printable(row.case) for row in rows), f"{level} from"])
    lines = [_titles(first, groups), _names(first, groups)]
    lines += [_line(printable(row.case), first, groups, row.figures.values) + _found(row.figures) for row in rows]
    for title, key in (("mean", "mean"), (f"{level} from", "low"), ("to", "high")):
        values = {name: figures[name][key] for names in groups.values() for name in names}
        if any(value is not None for value in values.values()):
            lines.append(_line(title, first, groups, values))
    lines += ["", *_detection(tumors, level)]
    missing = sum(not row.scored for row in rows)
    if missing:
        lines.append(
            f"{missing} of {len(rows)} cases have no usable prediction and count as 0, their HD95 as the scan's diagonal"
        )
    lines += [printable(f"{row.case}: {row.status}") for row in rows if row.status != "ok"]
    return "\n".join(lines) + "\n"


def _groups(documented: Mapping[str, Column]) -> dict[str, list[str]]:
    """Group the columns that are printed by the title over them; `cases.csv` has the others."""
    return {
        "Dice": [name for name, column in documented.items() if is_dice(name, column)],
        "surface Dice": [name for name in documented if name.endswith("_surface_dice")],
        "HD95 mm": [f"{region}_hd95_mm" for region in HIERARCHICAL_REGIONS if f"{region}_hd95_mm" in documented],
    }


def _short(name: str) -> str:
    return name.removesuffix("_surface_dice").removesuffix("_hd95_mm")


def _width(name: str) -> int:
    return max(len(_short(name)), 6) + 1


def _titles(first: int, groups: Mapping[str, list[str]]) -> str:
    line = " " * first
    for title, names in groups.items():
        width = sum(_width(name) for name in names)
        line += f"  {title:-^{width - 1}}" if width else ""
    return line


def _names(first: int, groups: Mapping[str, list[str]]) -> str:
    parts = ["".join(f"{_short(name):>{_width(name)}}" for name in names) for names in groups.values() if names]
    return f"{'case':<{first}} " + " ".join(parts) + "  tumors"


def _line(title: str, first: int, groups: Mapping[str, list[str]], values: Mapping[str, float | None]) -> str:
    parts = ["".join(_cell(values[name], name) for name in names) for names in groups.values() if names]
    return f"{title:<{first}} " + " ".join(parts)


def _cell(value: float | None, name: str) -> str:
    digits = 1 if name.endswith("_mm") else 4
    return f"{'' if value is None else f'{value:.{digits}f}':>{_width(name)}}"


def _found(figures: CaseFigures) -> str:
    """Return `  2/3 +1`: two of three tumors found, one predicted where there is none."""
    true, found, predicted, right = figures.counts.values()
    return f"  {found}/{true}" + (f" +{predicted - right}" if predicted > right else "")


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
