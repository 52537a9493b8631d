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
    """Draw a panel a parameter, with a point a trial and each value's mean, once there is a score."""
    from matplotlib.figure import Figure

    records = [record for record in records if record["score"] is not None]
    parameters = list(dict.fromkeys(key for record in records for key in record["parameters"]))
    if not parameters:
        return
    columns, rows = min(COLUMNS, len(parameters)), -(-len(parameters) // COLUMNS)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    figure.suptitle(f"{score} of {len(records)} trials; open: pruned, orange: mean of a value", fontsize="small")
    for number, key in enumerate(parameters, start=1):
        draw_panel(figure.add_subplot(rows, columns, number), key, [one for one in records if key in one["parameters"]])
    with whole_file(path, ".png") as temporary:
        figure.savefig(temporary, dpi=120)


def draw_panel(panel: Axes, key: str, records: list[dict[str, Any]]) -> None:
    """Draw one parameter: at its value where all are numbers, else by name."""
    values: list[Any] = [record["parameters"][key] for record in records]
    try:
        values = [float(value) for value in values]
        if min(values) > 0 and max(values) >= LOG_FROM * min(values):
            panel.set_xscale("log")
    except ValueError:
        panel.tick_params("x", rotation=30)
    scores: dict[Any, list[float]] = {}
    for value, record in zip(values, records, strict=True):
        scores.setdefault(value, []).append(record["score"])
        face = "none" if record["status"] == "pruned" else "tab:blue"
        panel.plot(value, record["score"], "o", color="tab:blue", markerfacecolor=face, alpha=0.7)
    for value, several in scores.items():
        if len(scores) < len(records):
            panel.plot(value, fmean(several), color="tab:orange", marker="_", markersize=20)
    panel.set_xlabel(key)
    panel.grid(alpha=0.3)
