"""Each parameter of a sweep against the score."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kits.io import whole_file
from kits.sweeps.table import union
from kits.sweeps.trial import PRUNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, COLUMNS = 4.2, 3.4, 4  # inches of a panel, panels side by side
LOG_FROM = 30.0  # positive values that span this factor are drawn on a logarithmic axis
LONGEST_NAME = 12  # letters; longer names are turned
FEW = 8  # values that are all written on the axis


def draw(path: Path, records: list[dict[str, Any]], score: str) -> None:
    """Draw a panel for each parameter: a point a trial, and the mean of each value where values come again.

    Nothing is drawn while no trial has a score.
    """
    from matplotlib.figure import Figure

    records = [record for record in records if record.get("score") is not None]
    parameters = union(record["parameters"] for record in records)
    if not parameters:
        return
    columns = min(COLUMNS, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, key in zip(panels, parameters, strict=False):
        panel_of(panel, key, [record for record in records if key in record["parameters"]])
    for panel in panels[len(parameters) :]:
        panel.set_axis_off()
    for panel in panels[::columns]:
        panel.set_ylabel(score)
    figure.suptitle(f"{len(records)} trials with a score; open: pruned, orange: mean of a value", fontsize="small")
    with whole_file(path, ".png") as temporary:
        figure.savefig(temporary, dpi=120)


def panel_of(panel: Axes, key: str, records: list[dict[str, Any]]) -> None:
    """One parameter: filled points are trials that went to their end, open ones were pruned."""
    values = [record["parameters"][key] for record in records]
    positions, names = positions_of(values)
    means: dict[float, list[float]] = {}
    for position, record in zip(positions, records, strict=True):
        means.setdefault(position, []).append(record["score"])
        face = "none" if record["status"] == PRUNED else "tab:blue"
        panel.plot(position, record["score"], "o", color="tab:blue", markerfacecolor=face, alpha=0.7)
    if len(means) < len(records):
        ordered = sorted(means)
        # Between names there is nothing that a line could run through.
        style = "-" if names is None else "none"
        averages = [fmean(means[position]) for position in ordered]
        panel.plot(ordered, averages, linestyle=style, color="tab:orange", marker="_", markersize=20)
    if names is not None:
        panel.set_xlim(-0.5, len(names) - 0.5)
        turned = any(len(name) > LONGEST_NAME for name in names)
        panel.set_xticks(range(len(names)), names, rotation=30 if turned else 0, ha="right" if turned else "center")
    elif min(positions) > 0 and max(positions) >= LOG_FROM * min(positions):
        panel.set_xscale("log")
    elif len(means) <= FEW:
        panel.set_xticks(sorted(means))
    panel.set_xlabel(key)
    panel.grid(alpha=0.3)


def positions_of(values: list[str]) -> tuple[list[float], list[str] | None]:
    """Where on the axis each value lies: at itself where all are numbers, else by name (the names are the second result)."""
    try:
        return [float(value) for value in values], None
    except ValueError:
        names = sorted(set(values))
        return [float(names.index(value)) for value in values], names
