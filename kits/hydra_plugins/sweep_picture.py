"""Each parameter of a sweep against the score."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kits.hydra_plugins.trial_records import PRUNED, Trial
from kits.io import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, COLUMNS = 4.2, 3.4, 4  # inches of a panel, panels side by side
LOG_FROM = 30.0  # positive values that span this factor are drawn on a logarithmic axis


def draw_sweep(path: Path, trials: list[Trial], score: str) -> None:
    """Draw a panel a parameter, with a point a trial and each value's mean, once there is a score."""
    from matplotlib.figure import Figure

    trials = [trial for trial in trials if trial.score is not None]
    parameters = list(dict.fromkeys(key for trial in trials for key in trial.parameters))
    if not parameters:
        return
    columns, rows = min(COLUMNS, len(parameters)), -(-len(parameters) // COLUMNS)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    figure.suptitle(f"{score} of {len(trials)} trials; open: pruned, orange: mean of a value", fontsize="small")
    for number, key in enumerate(parameters, start=1):
        draw_panel(figure.add_subplot(rows, columns, number), key, [one for one in trials if key in one.parameters])
    with whole_file(path, ".png") as temporary:
        figure.savefig(temporary, dpi=120)


def draw_panel(panel: Axes, key: str, trials: list[Trial]) -> None:
    """Draw one parameter: at its value where all are numbers, else by name."""
    values: list[Any] = [trial.parameters[key] for trial in trials]
    try:
        values = [float(value) for value in values]
        if min(values) > 0 and max(values) >= LOG_FROM * min(values):
            panel.set_xscale("log")
    except ValueError:
        panel.tick_params("x", rotation=30)
    scores: dict[Any, list[float]] = {}
    for value, trial in zip(values, trials, strict=True):
        assert trial.score is not None  # others have been left out
        scores.setdefault(value, []).append(trial.score)
        face = "none" if trial.status == PRUNED else "tab:blue"
        panel.plot(value, trial.score, "o", color="tab:blue", markerfacecolor=face, alpha=0.7)
    if len(scores) < len(trials):
        for value, several in scores.items():
            panel.plot(value, fmean(several), color="tab:orange", marker="_", markersize=20)
    panel.set_xlabel(key)
    panel.grid(alpha=0.3)
