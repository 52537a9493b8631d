"""Intervals of means over cases by the bootstrap: cases are drawn anew, with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Draws:
    """Draws of the same cases for every figure, so that figures of one evaluation vary together.

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
