"""Measure the diameters of a tumor between voxel centers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import cdist

from kits.volume import Spacing


@dataclass(frozen=True)
class Diameters:
    """The diameters of a tumor, mm.

    Attributes:
        axial: the longest distance of two voxel centers in one axial slice, the largest over the slices (RECIST 1.1).
        short: in that slice, how wide the tumor is across the axial diameter.
        slice: that slice's index. ends, short_ends: of the two diameters, (2, 2) (y, x) indices.
        in_space: the longest distance of two voxel centers.
    """

    axial: float
    short: float
    slice: int
    ends: np.ndarray
    short_ends: np.ndarray
    in_space: float


def diameters_of(mask: np.ndarray, spacing: Spacing) -> Diameters:
    """Measure a mask (z, y, x) that is not empty."""
    corners = [_corners(slice_, spacing[1:]) if slice_.any() else None for slice_ in mask]
    best = (-1.0, 0, np.zeros((2, 2)))
    for k, points in enumerate(corners):
        if points is not None:
            length, ends = _longest(points)
            if length > best[0]:
                best = (length, k, ends)
    axial, place, ends = best
    along = (ends[1] - ends[0]) / axial if axial else np.array([0.0, 1.0])
    points = corners[place]
    assert points is not None
    normal = np.array([-along[1], along[0]])
    across = points @ normal
    edges = points[[int(across.argmin()), int(across.argmax())]]
    short_ends = (edges @ along).mean() * along + (edges @ normal)[:, None] * normal
    in_space = np.concatenate(
        [
            np.column_stack([np.full(len(points), k * spacing[0]), points])
            for k, points in enumerate(corners)
            if points is not None
        ]
    )
    pixel = np.array(spacing[1:])
    in_space_mm = _longest(_hull(in_space))[0]
    return Diameters(axial, float(np.ptp(across)), place, ends / pixel, short_ends / pixel, in_space_mm)


def _corners(slice_: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Find the corners (n, 2) (y, x) mm of a slice's convex hull, from the ends of its rows."""
    rows = np.flatnonzero(slice_.any(axis=1))
    first, last = slice_[rows].argmax(axis=1), slice_.shape[1] - 1 - slice_[rows, ::-1].argmax(axis=1)
    points = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)])
    return _hull(np.unique(points, axis=0) * np.array(spacing))


def _hull(points: np.ndarray) -> np.ndarray:
    """Find the corners of points' convex hull; all of them where they lie in a line or a plane."""
    if len(points) <= points.shape[1] + 1:
        return points
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points


def _longest(points: np.ndarray) -> tuple[float, np.ndarray]:
    """Find the longest distance of two points (n, d), and the two."""
    distances = cdist(points, points)
    one, other = np.unravel_index(int(np.argmax(distances)), distances.shape)
    return float(distances[one, other]), points[[one, other]]
