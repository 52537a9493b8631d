"""Each parameter of a sweep against the score."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kits.io import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, COLUMNS = 4.2, 3.4, 4  # inches of a panel, panels side by side
LOG_FROM = 30.0  # positive values that span this factor are drawn on a logarithmic axis


def draw_sweep(path: Path, records: list[dict[str, Any]], score: str) -> None:
    """Draw a panel for each parameter: a point a trial, and the mean of each value; nothing while no trial has a score."""
    from matplotlib.figure import Figure

    records = [record for record in records if record["score"] is not None]
    parameters = list(dict.fromkeys(key for record in records for key in record["parameters"]))
    if not parameters:
        return
    columns = min(COLUMNS, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, key in zip(panels, parameters, strict=False):
        draw_panel(panel, key, [record for record in records if key in record["parameters"]])
    for panel in panels[len(parameters) :]:
        panel.set_axis_off()
    for panel in panels[::columns]:
        panel.set_ylabel(score)
    figure.suptitle(f"{len(records)} trials with a score; open: pruned, orange: mean of a value", fontsize="small")
    with whole_file(path, ".png") as temporary:
        figure.savefig(temporary, dpi=120)


def draw_panel(panel: Axes, key: str, records: list[dict[str, Any]]) -> None:
    """Draw one parameter: at its value where all are numbers, else by name."""
    texts = [record["parameters"][key] for record in records]
    names = sorted(set(texts))
    try:
        positions = [float(text) for text in texts]
        if min(positions) > 0 and max(positions) >= LOG_FROM * min(positions):
            panel.set_xscale("log")
    except ValueError:
        positions = [float(names.index(text)) for text in texts]
        panel.set_xlim(-0.5, len(names) - 0.5)
        panel.set_xticks(range(len(names)), names, rotation=30, ha="right")
    for position, record in zip(positions, records, strict=True):
        face = "none" if record["status"] == "pruned" else "tab:blue"
        panel.plot(position, record["score"], "o", color="tab:blue", markerfacecolor=face, alpha=0.7)
    for value in set(positions) if len(set(positions)) < len(positions) else ():
        mean = fmean(record["score"] for position, record in zip(positions, records, strict=True) if position == value)
        panel.plot(value, mean, color="tab:orange", marker="_", markersize=20)
    panel.set_xlabel(key)
    panel.grid(alpha=0.3)
