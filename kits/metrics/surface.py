"""Distances between the surfaces of two masks: surface Dice and the 95th percentile of Hausdorff.

Only the box around both masks is looked at, however large the arrays are.

A surface element is where the mask passes between eight neighboring voxels: a 2 x 2 x 2 neighborhood has 256 patterns of inside
and outside. Marching cubes (Lorensen and Cline 1987) cuts the cube that the eight voxel centers span halfway along each edge
between an inside and an outside corner; the polygons through these cuts are the pattern's surface element. The areas are those of
DeepMind's `surface-distance`, which the KiTS21 and KiTS23 scorers call; a test compares all 256 at several spacings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from kits.volume import Spacing
from kits.volume.windows import common_window

# The triangles of surface elements: their normals (z, y, x) on a cube of side 1, each as long as its triangle's area.
# A corner cut off, halves of the faces across z, y and x, and halves of the bevels along z, y and x.
NORMALS = np.array([(1, 1, 1), (4, 0, 0), (0, 4, 0), (0, 0, 4), (0, 2, 2), (2, 0, 2), (2, 2, 0)]) / 8
# How many of each a pattern has: a digit a triangle, seven a pattern, sixteen patterns a line. A pattern is a `neighbor_codes`.
PATTERNS = """
0000000100000010000000000002100000000000202000000310000010000002000000000002031000000000002310000031000000200000
1000000000020020000003010000200000030010003000000600000020000001000200100002040001101000002400010141000003100000
1000000200000000002003010000200000010000201000200400011020000003000000300100060000001000002410000040001013100000
0000002301000030100000020000100000240000114010000301000010000024010000400001130100000000004100000210000020000002
1000000200000020000001000002000020030010001000200400010120000003000000100002041000003010000600000040001103100000
0000020300100010000204000011300100000020004001000300100010000204001000000004010000204000011300100010000200000020
2000000300000010002004010000100020040010000000400100020030000004000000400100030000004010000300000010002002000000
3100000600000040001103010000400010130010001000200000020041000003000000100002020000001000002200000020000001000000
1000000200000020000001000002200000010000203000000410000000002001000200300100040001013010000400011060000003100000
2000000100020030000004010000300000040010004000000300000010002000000400400100010002004010000100020030000002000000
0000020100002030010004000011100002000000404001000100002030010004001000000200030010004000011100002030010000000020
3100000400011060000003010000410000010000203000000200000040001011000200300100000002001000002200000020000001000000
0000002100000210000020000004301000040000114010000100000230100004010000400001110000020020000301000030100000000002
3100000400010141000001000002600000030010003000000200000040001101000200100002020000003010000000020020000001000000
3100000410000040001011000002400011010000201000200200000060000003000000300100020000003010000200000000002001000000
0200000310000031000000000002310000000000202000000100000031000002000000000002010000000000002100000010000000000000
"""
COUNTS = np.array([int(digit) for digit in "".join(PATTERNS.split())]).reshape(256, len(NORMALS))


def neighbor_codes(mask: np.ndarray) -> np.ndarray:
    """Compute the pattern around every meeting point of eight voxels; outside the array is background.

    Args:
        mask: uint8 0 or 1, (z, y, x).

    Returns:
        uint8 (z + 1, y + 1, x + 1): at point p, bit 4 dz + 2 dy + dx is voxel p - 1 + (dz, dy, dx).
    """
    codes = mask
    for axis, shift in ((2, 1), (1, 2), (0, 4)):
        joined = np.zeros([n + (a == axis) for a, n in enumerate(codes.shape)], np.uint8)
        before, after = np.moveaxis(joined, axis, 0)[1:], np.moveaxis(joined, axis, 0)[:-1]
        before |= np.moveaxis(codes, axis, 0)
        after |= np.moveaxis(codes, axis, 0) << np.uint8(shift)
        codes = joined
    return codes


def surfel_areas(spacing: Spacing) -> np.ndarray:
    """Compute the area in mm2 of each of the 256 surface elements, float64."""
    z, y, x = spacing
    scale = np.array((y * x, z * x, z * y))  # a normal's component along an axis is an area across it
    areas: np.ndarray = COUNTS @ np.linalg.norm(NORMALS * scale, axis=1)
    return areas


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
    inside = [mask[window].astype(bool, copy=False) for mask in (prediction, truth)]
    borders = [_border_voxels(mask) for mask in inside]
    found, true = (np.flatnonzero(border) for border in borders)
    if not len(found) or not len(true):
        return float("inf")
    directed = _distances(found, true, borders[1], spacing), _distances(true, found, borders[0], spacing)
    return max(float(np.percentile(mm, percent)) for mm in directed)


def _border_voxels(mask: np.ndarray) -> np.ndarray:
    """Find the voxels of a mask that share a face with the outside."""
    whole = np.pad(mask, 1)  # and shifts of it: scipy's erosion takes four times as long
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
