"""All cases together: means with intervals by the bootstrap, and how many tumors were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from kits.metrics.case import CaseFigures, Column, Measures
from kits.metrics.detection import Component, count_matched, size_classes

EVERY_SIZE = (0.0, float("inf"))


@dataclass(frozen=True)
class Draws:
    """Draws of cases with replacement, the same for every figure, so that figures vary together.

    Attributes:
        cases: how many there are.
        resamples: draws.
        level: of the percentile interval, e.g. 0.95.
        seed: the same seed gives the same intervals.
    """

    cases: int
    resamples: int
    level: float
    seed: int
    draws: np.ndarray = field(init=False, repr=False)  # (resamples, cases): how often each case is in each draw

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        draws = rng.multinomial(self.cases, np.full(self.cases, 1 / self.cases), size=self.resamples)
        object.__setattr__(self, "draws", draws.astype(np.float64))

    def interval(self, numerators: Sequence[float], denominators: Sequence[float] | None = None) -> tuple[float, float] | None:
        """Compute the percentile interval of sum(numerators) / sum(denominators), or of the mean.

        Of the mean where there are no denominators. Cases whose numerator is NaN are left out of both sums, and draws without any
        denominator out of the interval.

        Returns:
            (low, high); None for fewer than two cases that count.
        """
        over = np.asarray(numerators, float)
        under = np.ones(self.cases) if denominators is None else np.asarray(denominators, float)
        counts = np.isfinite(over) & (under > 0)
        if counts.sum() < 2:
            return None
        below = self.draws @ np.where(counts, under, 0)
        ratios = (self.draws @ np.where(counts, over, 0))[below > 0] / below[below > 0]
        low, high = np.quantile(ratios, [(1 - self.level) / 2, (1 + self.level) / 2])
        return float(low), float(high)


@dataclass(frozen=True)
class Row:
    """An expected case: figures, status (`ok` or what is wrong), and whether its prediction is usable."""

    case: str
    figures: CaseFigures
    status: str
    scored: bool


def summary_of(rows: Sequence[Row], documented: Mapping[str, Column], measures: Measures, bootstrap: Draws) -> dict[str, Any]:
    """Return the content of `summary.json`.

    `cases`, the means of the Dice scores and the list `missing` (where there are missing cases) come first; then every column
    with its unit and meaning, the tumors, and how the intervals were made.
    """
    figures = {name: describe([row.figures.values[name] for row in rows], bootstrap) for name in documented}
    missing = [row.case for row in rows if not row.scored]
    return {
        "cases": len(rows),
        **{name: figures[name]["mean"] for name, column in documented.items() if is_dice(name, column)},
        **({"missing": missing} if missing else {}),
        "columns": {
            name: {"unit": column.unit, "meaning": column.meaning, **figures[name]} for name, column in documented.items()
        },
        "tumors": tumors_of(rows, measures, bootstrap),
        "intervals": {
            "method": "percentile bootstrap over cases",
            "level": bootstrap.level,
            "resamples": bootstrap.resamples,
            "seed": bootstrap.seed,
        },
    }


def is_dice(name: str, column: Column) -> bool:
    """Tell whether a column is one of volume overlap."""
    return column.unit == "1" and not name.endswith("_surface_dice")


def describe(values: Sequence[float], bootstrap: Draws) -> dict[str, Any]:
    """Describe numbers by mean, interval, median and, with negative ones, mean absolute value.

    Null where nothing counts: cases without a value (NaN) are left out, and `cases` says how many are not.
    """
    known = np.array([value for value in values if isfinite(value)])
    if not len(known):
        return {"mean": None, "low": None, "high": None, "median": None, "cases": 0}
    low, high = bootstrap.interval(values) or (None, None)
    signed = {"mean_absolute": float(np.abs(known).mean())} if (known < 0).any() else {}
    return {
        "mean": float(known.mean()),
        "low": low,
        "high": high,
        "median": float(np.median(known)),
        **signed,
        "cases": len(known),
    }


def tumors_of(rows: Sequence[Row], measures: Measures, bootstrap: Draws) -> dict[str, Any]:
    """Compute recall by the true tumors' size and precision by the predicted ones', each over all too."""
    true, predicted = ([row.figures.true_tumors for row in rows], [row.figures.predicted_tumors for row in rows])
    sizes = {"all": EVERY_SIZE, **size_classes(measures.sizes_mm)}
    return {
        "rule": f"a connected tumor counts where the other side covers at least {measures.overlap:g} of its voxels; those below "
        f"{measures.least_mm:g} mm are left out; sizes are diameters of the ball of a tumor's volume",
        "recall": {name: share(true, limits, bootstrap) for name, limits in sizes.items()},
        "precision": {name: share(predicted, limits, bootstrap) for name, limits in sizes.items()},
    }


def share(tumors: Sequence[Sequence[Component]], limits: tuple[float, float], bootstrap: Draws) -> dict[str, Any]:
    """Return matched tumors over all of these diameters; `share` is null where there is none.

    Args:
        tumors: by case.
        limits: low <= diameter < high, mm.
    """
    counts = [count_matched(found, limits) for found in tumors]
    matched, total = (sum(column) for column in zip(*counts, strict=True))
    low, high = bootstrap.interval([one for one, _ in counts], [all_ for _, all_ in counts]) or (None, None)
    return {"share": matched / total if total else None, "low": low, "high": high, "matched": matched, "of": total}
