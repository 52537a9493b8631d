"""The renal sinus, which no KiTS label names: the free medial part of the kidney's hull.

And where it opens. R.E.N.A.L. (Kutikov and Uzzo 2009, J Urol 182:844) takes its polar lines from where the sinus opens, and its N
from the distance to the collecting system, for which the sinus stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from kits.readout.cubes import Cubes, distance_to
from kits.readout.kidneys import LEFT
from kits.volume import bounding_slices
from kits.volume.components import connected

# What is narrower than twice this between hull and kidney is a dent, not the sinus.
OPENING_MM = 2.5
# Ours: less is no sinus (a kidney has 5 to 30 mL).
LEAST_ML = 0.5
# A cube's four neighbors in its axial slice, without the cube itself.
IN_PLANE = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]], bool)
CENTER = np.array([[[0, 0, 0], [0, 1, 0], [0, 0, 0]]], bool)


@dataclass(frozen=True)
class Sinus:
    """The sinus of one kidney on its cubes.

    Attributes:
        mask: bool (z, y, x); empty where none was found.
        gap: the free part of the hull on the medial side, before the opening.
        polar_lines: first and last slice in which it opens to the outside; None where there is none.
    """

    mask: np.ndarray
    gap: np.ndarray
    polar_lines: tuple[int, int] | None


def find_sinus(cubes: Cubes, side: str) -> Sinus:
    """Find the sinus: the part of the hull that neither kidney nor tumor fills, opened, medial.

    Medial of the hull's center.

    Args:
        side: `right` or `left`; the sinus lies toward the other.
    """
    kidney = cubes.kidney
    hull = hull_of(kidney)
    free = hull & (cubes.labels == 0)
    cube = (cubes.step,) * 3
    # An opening by a ball alone rounds corners off, by up to this.
    opened = free & (distance_to(distance_to(~free, cube) > OPENING_MM, cube) <= 3**0.5 * OPENING_MM)
    columns = np.arange(hull.shape[2])
    weights = hull.sum(axis=(0, 1))
    center = (columns * weights).sum() / max(1, weights.sum())
    medial = columns <= center if side == LEFT else columns >= center
    gap = free & medial
    regions = connected(opened & gap)
    sizes = np.bincount(regions.ravel())
    if len(sizes) < 2 or sizes[1:].max() * cubes.step**3 < LEAST_ML * 1000:
        return Sinus(np.zeros_like(hull), gap, None)
    mask = regions == 1 + int(np.argmax(sizes[1:]))
    # Kidney and tumor may close around a part of it within a slice.
    solid = cubes.labels > 0
    holes = ndimage.binary_fill_holes(solid, IN_PLANE | CENTER) & ~solid
    regions = connected(holes | mask)
    own = np.unique(regions[mask])
    mask |= holes & np.isin(regions, own[own > 0])
    open_slices = np.flatnonzero((mask & ndimage.binary_dilation(~hull, IN_PLANE)).any(axis=(1, 2)))
    lines = (int(open_slices[0]), int(open_slices[-1])) if len(open_slices) else None
    return Sinus(mask, gap | mask, lines)


def hull_of(mask: np.ndarray) -> np.ndarray:
    """Fill the convex hull of a mask (z, y, x); the mask itself where it is flat."""
    box = bounding_slices(mask)
    if box is None:
        return mask.copy()
    inside = mask[box]
    rows = inside.any(axis=2)
    z, y = np.nonzero(rows)
    first, last = inside.argmax(axis=2), inside.shape[2] - 1 - inside[:, :, ::-1].argmax(axis=2)
    points = np.concatenate([np.stack([z, y, ends[rows]], axis=1) for ends in (first, last)]).astype(float)
    try:
        facets = ConvexHull(points).equations  # n . p + d <= 0 inside
    except QhullError:
        return mask.copy()
    # A row (z, y) meets a convex body in one interval of x, which every facet bounds on one side.
    zs, ys = np.indices(rows.shape)
    low, high = np.full(rows.shape, -np.inf), np.full(rows.shape, np.inf)
    for nz, ny, nx, d in facets:
        rest = nz * zs + ny * ys + d
        if abs(nx) < 1e-9:
            low[rest > 1e-6] = np.inf
        elif nx > 0:
            np.minimum(high, -rest / nx, out=high)
        else:
            np.maximum(low, -rest / nx, out=low)
    x = np.arange(inside.shape[2])
    filled = mask.copy()
    filled[box] |= (x >= low[..., None] - 1e-6) & (x <= high[..., None] + 1e-6)
    return filled
