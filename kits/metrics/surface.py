"""Distances between the surfaces of two masks: surface Dice and the 95th percentile of Hausdorff.

Only the box around both masks is looked at, however large the arrays are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from kits.metrics.surfels import neighbor_codes, surfel_areas
from kits.volume import Spacing
from kits.volume.windows import common_window

# Points of a leaf that are tried one by one: a tree serves one batch of queries, so it is built coarser than scipy's 10 or 16.
LEAF = 32


@dataclass(frozen=True)
class Surfaces:
    """The elements of two surfaces.

    Attributes:
        to_truth, to_prediction: mm from each element of the prediction to the truth's nearest one, and the other way round.
        prediction_areas, truth_areas: of the elements, in the same order, mm2.
    """

    to_truth: np.ndarray
    to_prediction: np.ndarray
    prediction_areas: np.ndarray
    truth_areas: np.ndarray

    def dice(self, tolerance_mm: float) -> float:
        """Compute surface Dice (Nikolov et al., arXiv 1809.04430) at a tolerance in mm.

        It is the share of both areas that lies within the tolerance of the other. Both surfaces empty is 1, one empty is 0.
        """
        total = float(self.prediction_areas.sum() + self.truth_areas.sum())
        near = (
            self.prediction_areas[self.to_truth <= tolerance_mm].sum()
            + self.truth_areas[self.to_prediction <= tolerance_mm].sum()
        )
        return float(near) / total if total else 1.0

    def hausdorff(self, percent: float = 95.0) -> float:
        """Compute DeepMind's robust Hausdorff distance in mm: the larger directed percentile, by area.

        Both surfaces empty is 0, one empty is infinite.
        """
        if not len(self.to_truth) and not len(self.to_prediction):
            return 0.0
        return max(
            _percentile_by_area(self.to_truth, self.prediction_areas, percent),
            _percentile_by_area(self.to_prediction, self.truth_areas, percent),
        )


def compare_surfaces(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> Surfaces:
    """Measure the surface elements of two masks and their distances, as `surface-distance` does.

    Args:
        prediction, truth: masks of one shape (z, y, x); what lies outside the arrays is background.
        spacing: of the truth, (z, y, x) mm.
    """
    window = common_window(prediction, truth)
    if window is None:
        return Surfaces(*(np.zeros(0) for _ in range(4)))
    areas = surfel_areas(spacing)
    codes = [neighbor_codes(mask[window].astype(bool, copy=False).view(np.uint8)) for mask in (prediction, truth)]
    surfaces = [code + np.uint8(1) > 1 for code in codes]  # neither 0, all outside, nor 255, all inside
    found, true = (np.flatnonzero(surface) for surface in surfaces)
    to_truth, to_prediction = _distances(found, true, surfaces[1], spacing), _distances(true, found, surfaces[0], spacing)
    return Surfaces(to_truth, to_prediction, areas[codes[0].ravel()[found]], areas[codes[1].ravel()[true]])


def hausdorff_of_voxels(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing, percent: float = 95.0) -> float:
    """Compute MONAI's percentile of the Hausdorff distance in mm, to compare with its figures.

    Between the centers of border voxels, those with a face to the outside: the larger of both directions' interpolated
    percentiles. Both masks empty is 0, one empty is infinite.
    """
    window = common_window(prediction, truth)
    if window is None:
        return 0.0
    borders = [_border_voxels(mask[window].astype(bool, copy=False)) for mask in (prediction, truth)]
    found, true = (np.flatnonzero(border) for border in borders)
    if not len(found) or not len(true):
        return float("inf")
    directed = _distances(found, true, borders[1], spacing), _distances(true, found, borders[0], spacing)
    return max(float(np.percentile(mm, percent)) for mm in directed)


def _border_voxels(mask: np.ndarray) -> np.ndarray:
    """Find the voxels of a mask that share a face with the outside."""
    whole = np.pad(mask, 1)
    core = whole[1:-1, 1:-1, 1:-1]
    inner = core.copy()
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            index = [slice(1, -1)] * 3
            index[axis] = side
            inner &= whole[tuple(index)]
    return core & ~inner


def _distances(start: np.ndarray, goal: np.ndarray, goals: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Compute mm from each start to the nearest goal, positions in the flattened map of all `goals`."""
    if not len(goal):
        return np.full(len(start), np.inf)
    distances = np.zeros(len(start))
    apart = ~goals.ravel()[start]  # the others are goals themselves: where a segmentation is good, most are
    if apart.any():
        # A tree over the points alone: a distance map of the box costs far more, and most for a stray voxel far away.
        tree = cKDTree(_points(goal, goals.shape, spacing), leafsize=LEAF, balanced_tree=False)
        distances[apart] = tree.query(_points(start[apart], goals.shape, spacing))[0]
    return distances


def _points(flat: np.ndarray, shape: tuple[int, ...], spacing: Spacing) -> np.ndarray:
    """Return positions in a flattened array as (n, 3) mm."""
    return np.stack(np.unravel_index(flat, shape), axis=1) * np.array(spacing)


def _percentile_by_area(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """Find the distance below which at least this share of the area lies; infinite without a surface."""
    if not len(distances):
        return float("inf")
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order[min(int(np.searchsorted(share, percent / 100)), len(order) - 1)]])
