"""Tumors found and missed, one by one: connected components of two masks against each other.

A component is what 26-connected voxels join. A true one counts as found where the prediction covers at least a given share of
its voxels, a predicted one as right where the truth covers that share of its own. So two true tumors under one predicted
component are both found, and a tumor that is predicted in two pieces is found once, both pieces right. Components below a least
size count on neither side: they are specks of the outlining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import pi

import numpy as np

from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected


@dataclass(frozen=True)
class Component:
    """One connected piece of a mask.

    Attributes:
        volume_ml: its volume.
        overlap: the share of its voxels that the other mask covers, 0 to 1.
        matched: found (of the truth) or right (of the prediction).
    """

    volume_ml: float
    overlap: float
    matched: bool

    @property
    def diameter_mm(self) -> float:
        """Diameter of the ball of this volume."""
        return diameter_of(self.volume_ml)


def diameter_of(volume_ml: float) -> float:
    """Compute the diameter in mm of a ball of this volume."""
    return float((6 * volume_ml * 1000 / pi) ** (1 / 3))


def components(mask: np.ndarray, other: np.ndarray, spacing: Spacing, *, overlap: float, least_mm: float) -> list[Component]:
    """Find the components of a mask, the largest first.

    Args:
        mask, other: bool, of one shape (z, y, x).
        spacing: of the truth, (z, y, x) mm.
        overlap: share of a component that the other mask must cover to match it; any voxel at all where this is 0.
        least_mm: components of a smaller diameter (of the ball of their volume) are left out.
    """
    window = bounding_slices(mask)
    if window is None:
        return []
    numbered = connected(mask[window])
    sizes = np.bincount(numbered.ravel())
    hits = np.bincount(numbered[other[window]], minlength=len(sizes))
    voxel_ml = float(np.prod(spacing)) / 1000
    found = []
    for size, hit in zip(sizes[1:], hits[1:], strict=True):
        share = float(hit / size)
        found.append(Component(float(size * voxel_ml), share, bool(hit) and share >= overlap))
    return sorted((one for one in found if one.diameter_mm >= least_mm), key=lambda one: -one.volume_ml)


def size_classes(edges_mm: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return classes of diameter by name, low <= d < high: `<20 mm`, `20-40 mm`, ..., `>=70 mm`."""
    if not edges_mm:
        return {}
    low, high = f"<{edges_mm[0]:g} mm", f">={edges_mm[-1]:g} mm"
    between = {f"{a:g}-{b:g} mm": (a, b) for a, b in pairwise(edges_mm)}
    return {low: (0.0, edges_mm[0]), **between, high: (edges_mm[-1], float("inf"))}


def count_matched(found: Sequence[Component], limits: tuple[float, float] = (0.0, float("inf"))) -> tuple[int, int]:
    """Count the matched components of these diameters (low <= d < high, mm), and all of them."""
    among = [one for one in found if limits[0] <= one.diameter_mm < limits[1]]
    return sum(one.matched for one in among), len(among)
