"""Mesh the surface of a tumor, for its area and the part of it that touches the kidney.

The surface is that of marching cubes on the signed distance: counting voxel faces overstates areas by 45 %. What it touches is
read from the voxels themselves, for interpolation between thick slices fills the crease where a tumor leaves the kidney.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from kits.core.labels import BACKGROUND
from kits.readout.cubes import Cubes
from kits.readout.kidneys import KidneyRegion
from kits.volume import Spacing, bounding_slices

# Ours: cubes by which the signed distance is smoothed before its surface is taken, so that steps of voxels do not count as area.
SMOOTHING = 0.7
# Ours: so many faces of voxels around a triangle say what it touches, each by its area and its distance, but for the nearest mm.
FACES, NEAR_MM = 32, 1.0

# Ours: of what is so ragged or thin that cubes lose half of it, no shape is measured.
LEAST_KEPT = 0.5


@dataclass(frozen=True)
class TumorSurface:
    """The areas of a tumor's surface, mm2: the whole, and the part that touches the kidney or a cyst."""

    area_mm2: float
    contact_mm2: float


def surface_of(cubes: Cubes, region: KidneyRegion, spacing: Spacing, index: int, volume_ml: float) -> TumorSurface | None:
    """Mesh one tumor, counted from 0, so that it encloses its volume.

    None where cubes lose half of it.

    Args:
        spacing: (z, y, x) mm of the region's voxels.
        volume_ml: the integrated one.
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
    vertices = (vertices - 2 + np.array([part.start for part in place])) * step + np.array(cubes.origin)
    corners = vertices[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    faces, sizes, kidney = _faces(region, spacing, index)
    apart, nearest = cKDTree(faces).query(corners.mean(axis=1), k=min(FACES, len(faces)))
    weights = sizes[nearest] / (apart**2 + NEAR_MM**2)
    touches = (weights * kidney[nearest]).sum(axis=1) > 0.5 * weights.sum(axis=1)
    return TumorSurface(float(areas.sum()), float(areas[touches].sum()))


def _faces(region: KidneyRegion, spacing: Spacing, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the faces between a tumor's voxels and others.

    Center (n, 3) mm, area mm2, whether kidney or cyst lies beyond.
    No other tumor can lie there: tumors that touch are one.
    """
    own = region.tumors == index + 1
    box = bounding_slices(own)
    assert box is not None
    solid, tumor = (np.pad(mask, 1) for mask in (region.labels > BACKGROUND, own))
    around = tuple(slice(part.start, part.stop + 2) for part in box)  # with the padding, a voxel more on each side
    solid, tumor = solid[around], tumor[around]
    first = [window.start + part.start - 1 for window, part in zip(region.window, box, strict=True)]
    centers, areas, kidney = [], [], []
    for axis in range(3):
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        for inside, outside in ((tuple(low), tuple(high)), (tuple(high), tuple(low))):
            face = tumor[inside] & ~tumor[outside]
            at = np.argwhere(face).astype(float)
            at[:, axis] += 0.5
            centers.append((at + first) * spacing)
            areas.append(np.full(len(at), np.prod(spacing) / spacing[axis]))
            kidney.append(solid[outside][face])
    return np.concatenate(centers), np.concatenate(areas), np.concatenate(kidney)


def sphericity(volume_ml: float, area_mm2: float) -> float:
    """Divide the surface of the ball of this volume by the tumor's: 1 is a ball."""
    return float(pi ** (1 / 3) * (6 * volume_ml * 1000) ** (2 / 3) / area_mm2)
