"""The outline that the kidney would have without its tumors, and what of them lies outside.

A convex hull is no such outline: it overstates what is outside by 0.06 to 0.08 of the tumor. Here it is an ellipsoid of the
kidney's own moments, found together with the part of the tumors inside it, and corrected where the kidney's surface is seen: each
direction from the center that no tumor covers says how far the kidney differs from its ellipsoid, and a thin plate carries that
on across the tumors. What is carried on is one over the radius: it is constant on the ellipsoid and linear in the direction on a
flat face, and a thin plate continues both exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from kits.readout.cubes import Cubes

# Directions from the center; 4000 are 3 degrees apart, 2.6 mm at a kidney's 50 mm.
DIRECTIONS = 4000
# Cubes of tumor that the refits look at: one in so many of a large one.
MOST_TUMOR = 40_000
# Directions through which the thin plate goes.
MOST_KNOWN = 600
# Cells of the table by height (of equal area) and turn.
TABLE = (100, 200)
# Of all directions this share must show the kidney's surface, or the ellipsoid alone holds.
LEAST_SEEN = 0.35
# Refits of the ellipsoid at most, and the change of its axes at which it stands.
ROUNDS, SETTLED = 50, 1e-4

_RAY_FROM, _RAY_TO, _RAY_STEPS = 0.2, 2.2, 200


@dataclass(frozen=True)
class Outline:
    """The kidney's own outline.

    Attributes:
        center: (z, y, x) in cubes.
        axes: columns are the ellipsoid's half axes in cubes, the longest first.
        directions: unit vectors (n, 3) in the frame where the ellipsoid is the unit ball. radii: the outline's radius along each.
        seen: share of the directions in which the kidney's surface is seen.
    """

    center: np.ndarray
    axes: np.ndarray
    directions: np.ndarray
    radii: np.ndarray
    seen: float

    @property
    def whitened(self) -> np.ndarray:
        """Matrix that takes an offset from the center to the frame where the ellipsoid is the unit ball."""
        return np.linalg.inv(self.axes)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell which points (n, 3) in cubes lie inside."""
        offsets = (points - self.center) @ self.whitened.T
        distances = np.linalg.norm(offsets, axis=1)
        return distances <= self._table[_cell(offsets / np.maximum(distances, 1e-9)[:, None])]

    @cached_property
    def _table(self) -> np.ndarray:
        """Radii by height and turn of a direction, two degrees and finer.

        Quicker than a search for every point.
        """
        heights, turns = (np.arange(n) + 0.5 for n in TABLE)
        z = 2 * heights[:, None] / TABLE[0] - 1
        angle = 2 * np.pi * turns[None] / TABLE[1] - np.pi
        ring = np.sqrt(1 - z**2)
        cells = np.stack([np.broadcast_to(z, TABLE), ring * np.sin(angle), ring * np.cos(angle)], axis=-1).reshape(-1, 3)
        apart, nearest = cKDTree(self.directions).query(cells, k=4)
        weights = 1 / np.maximum(apart, 1e-6)
        return ((self.radii[nearest] * weights).sum(axis=1) / weights.sum(axis=1)).reshape(TABLE)


def _cell(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the cells of unit vectors (n, 3) in the table of radii."""
    height = np.clip(((directions[:, 0] + 1) / 2 * TABLE[0]).astype(int), 0, TABLE[0] - 1)
    turn = (np.arctan2(directions[:, 1], directions[:, 2]) + np.pi) / (2 * np.pi) * TABLE[1]
    return height, np.clip(turn.astype(int), 0, TABLE[1] - 1)


def outline_of(cubes: Cubes, sinus: np.ndarray, blur_mm: float) -> Outline:
    """Find the outline of a kidney with parenchyma; its sinus belongs to it."""
    kidney = cubes.kidney | sinus
    tumor = cubes.labels == 2
    points = np.argwhere(tumor).astype(float)
    center, axes = _self_consistent(kidney, points)
    directions = sphere(DIRECTIONS)
    steps = np.linspace(_RAY_FROM, _RAY_TO, _RAY_STEPS)
    ends = directions @ axes.T  # the ellipsoid's surface, from the center
    rays = center + steps[:, None, None] * ends  # (steps, n, 3)
    at = [rays[..., axis] for axis in range(3)]
    whole = map_coordinates(kidney.astype(np.float32), at, order=1, cval=0.0) > 0.5
    mass = map_coordinates(tumor.astype(np.float32), at, order=1, cval=0.0) > 0.5 if len(points) else np.zeros_like(whole)
    last: np.ndarray = _RAY_STEPS - 1 - whole[::-1].argmax(axis=0)
    beyond = mass & (np.arange(_RAY_STEPS)[:, None] > last)
    near = np.zeros(len(directions), bool)
    if len(points):  # a tumor that ends just below the surface has pushed it
        below = np.clip(last[None] - np.arange(1, 4)[:, None], 0, _RAY_STEPS - 1)
        near = np.asarray(np.take_along_axis(mass, below, axis=0).any(axis=0))
    seen: np.ndarray = np.asarray(whole.any(axis=0)) & ~beyond.any(axis=0) & ~near & (last < _RAY_STEPS - 1)
    if len(points) and seen.any() and not seen.all():  # beside a tumor, interpolation between slices rounds the crease
        surface = ends * cubes.step
        apart, _ = cKDTree(surface[~seen]).query(surface[seen])
        beside = np.flatnonzero(seen)[apart < blur_mm]
        seen[beside] = False
    radii = np.ones(len(directions))
    radii[seen] = steps[last[seen]] + (steps[1] - steps[0]) / 2
    if seen.mean() >= LEAST_SEEN and not seen.all():
        radii[~seen] = 1 / _continued(directions[seen], 1 / radii[seen], directions[~seen])
    elif not seen.all():
        radii[~seen] = 1.0
    return Outline(center, axes, directions, radii, float(seen.mean()))


def _continued(known: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Continue values on the sphere from known directions (n, 3) to wanted ones.

    By a thin plate through those nearest.
    """
    # Those nearest to what is missing decide; a plate through more of them costs the cube of their number.
    apart, _ = cKDTree(wanted).query(known)
    nearest = np.argsort(apart, kind="stable")[: 4 * MOST_KNOWN]
    nearest = nearest[:: max(1, len(nearest) // MOST_KNOWN)]
    plate = RBFInterpolator(known[nearest], values[nearest], kernel="thin_plate_spline", smoothing=1e-3)
    found = plate(wanted)
    return np.clip(found, values.min(), values.max())


def _self_consistent(kidney: np.ndarray, tumor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the ellipsoid of the moments of the kidney and of those tumor voxels (n, 3) that lie inside it."""
    fixed = _moments(kidney)
    every = 1 + len(tumor) // MOST_TUMOR
    tumor = tumor[::every]
    center, axes = _ellipsoid(*fixed)
    for _ in range(ROUNDS if len(tumor) else 0):
        inside = tumor[np.linalg.norm((tumor - center) @ np.linalg.inv(axes).T, axis=1) <= 1]
        more = (every * len(inside), every * inside.sum(axis=0), every * inside.T @ inside)
        before = axes
        center, axes = _ellipsoid(*(a + b for a, b in zip(fixed, more, strict=True)))
        if np.abs(np.linalg.norm(axes, axis=0) - np.linalg.norm(before, axis=0)).max() < SETTLED * np.linalg.norm(axes[:, 0]):
            break
    return center, axes


def _moments(mask: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Compute count, sums and sums of products of a mask's indices, from its projections."""
    indices = [np.arange(n, dtype=float) for n in mask.shape]
    planes = {(0, 1): mask.sum(axis=2), (0, 2): mask.sum(axis=1), (1, 2): mask.sum(axis=0)}
    lines = [planes[0, 1].sum(axis=1), planes[0, 1].sum(axis=0), planes[0, 2].sum(axis=0)]
    sums = np.array([(line * index).sum() for line, index in zip(lines, indices, strict=True)])
    products = np.diag([(line * index**2).sum() for line, index in zip(lines, indices, strict=True)])
    for (a, b), plane in planes.items():
        products[a, b] = products[b, a] = indices[a] @ plane @ indices[b]
    return float(lines[0].sum()), sums, products


def _ellipsoid(count: float, sums: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the solid ellipsoid of these moments.

    A half axis is the root of five times the variance along it.
    """
    center = sums / count
    values, vectors = np.linalg.eigh(products / count - np.outer(center, center))
    axes = vectors[:, ::-1] * np.sqrt(5 * np.maximum(values[::-1], 0.25))
    return center, axes


def sphere(count: int) -> np.ndarray:
    """Spread unit vectors (count, 3) evenly over the sphere (a Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return np.stack([z, ring * np.sin(turn), ring * np.cos(turn)], axis=1)
