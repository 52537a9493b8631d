"""Mesh the surface of a tumor, for its area and the part of it that touches the kidney.

The surface is that of marching cubes on the signed distance: counting voxel faces overstates areas by 45 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.measure import marching_cubes

from kits.readout.cubes import Cubes

# Ours: cubes by which the signed distance is smoothed before its surface is taken, so that steps of voxels do not count as area.
SMOOTHING = 0.7
# Ours: a triangle touches the kidney where the mean of two signed distances, this far outside of it, is more than that.
# Interpolation fills the crease where a tumor leaves the kidney, and so overstates the distance of both together; it blunts the
# kidney's edge along that crease, and so understates, half as much, the distance of the kidney alone. Farther outside the angle
# between tumor and kidney would decide.
REACH_MM, LEAST_MEAN_MM = 0.25, -0.23

# Ours: of what is so ragged or thin that cubes lose half of it, no shape is measured.
LEAST_KEPT = 0.5


@dataclass(frozen=True)
class TumorSurface:
    """The areas of a tumor's surface, mm2: the whole, and the part that touches the kidney or a cyst."""

    area_mm2: float
    contact_mm2: float


def surface_of(cubes: Cubes, index: int, volume_ml: float) -> TumorSurface | None:
    """Mesh one tumor, counted from 0, so that it encloses the volume of its voxels.

    None where cubes lose half of it.
    """
    (distance, place), step = cubes.tumors[index], cubes.step
    smooth = gaussian_filter(np.pad(distance, 2, mode="constant", constant_values=float(min(-step, distance.min()))), SMOOTHING)
    cube_ml = step**3 / 1000
    if np.count_nonzero(smooth > 0) * cube_ml < LEAST_KEPT * volume_ml:
        return None
    # Interpolation and smoothing shrink what is convex, by up to 8 % of its volume in thick slices.
    rank = min(smooth.size - 1, round(volume_ml / cube_ml))
    level = float(-np.partition(-smooth.ravel(), rank)[rank])
    vertices, triangles, _, _ = marching_cubes(smooth, level, gradient_direction="ascent", allow_degenerate=False)
    vertices = vertices - 2 + np.array([part.start for part in place])
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # outward, by the order of corners
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    outside = corners.mean(axis=1) + REACH_MM / step * normals / np.maximum(lengths, 1e-12)
    # No other tumor can lie there: tumors that touch are one.
    both, kidney = (map_coordinates(field, list(outside.T), order=1, cval=-step) for field in (cubes.inside, cubes.solid))
    touches = (both + 2 * kidney) / 3 > LEAST_MEAN_MM
    areas = lengths[:, 0] / 2 * step**2
    return TumorSurface(float(areas.sum()), float(areas[touches].sum()))


def sphericity(volume_ml: float, area_mm2: float) -> float:
    """Divide the surface of the ball of this volume by the tumor's: 1 is a ball."""
    return float(pi ** (1 / 3) * (6 * volume_ml * 1000) ** (2 / 3) / area_mm2)
