"""Drawing label maps: kidneys with a carved sinus, tumors from buried to hanging off, and cysts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kits.core.labels import KIDNEY
from kits.painter.fields import Field, Lattice, Triple, ellipsoid, smooth_noise
from kits.painter.kidney import Cyst


def draw_labels(
    rng: np.random.Generator,
    spacing_z: float,
    spacing_xy: float,
    matrix: int,
    tumor_radius: tuple[float, float],
    margin_mm: tuple[float, float],
) -> tuple[NDArray[np.uint8], list[Cyst]]:
    """Draw a label map (z, y, x) in LPS of two kidneys (seldom one) with margins above and below them.

    Args:
        spacing_z, spacing_xy: voxel spacing in mm.
        matrix: rows and columns.
        tumor_radius: smallest and largest in mm; the logarithm is normal about the geometric middle.

    Returns:
        uint8 labels 0, 1, 2 and the cysts, which have label 1 as in KiTS19.
    """
    extent = matrix * spacing_xy
    size = float(np.clip(extent / 400, 0.75, 1.08) * rng.uniform(0.92, 1.08))
    sides = [-1, 1] if rng.random() > 0.06 else [int(rng.choice([-1, 1]))]
    below, above = rng.uniform(*margin_mm, size=2)
    length = {side: float(rng.uniform(92, 125) * min(size, 1.05)) for side in sides}
    heights = {-1: -rng.uniform(0, 18), 1: rng.uniform(-4, 12)}
    low = min(heights[side] - length[side] / 2 for side in sides) - below
    high = max(heights[side] + length[side] / 2 for side in sides) + above
    slices = max(8, round((high - low) / spacing_z))
    labels = np.zeros((slices, matrix, matrix), np.uint8)
    spine = (-low, extent * rng.uniform(0.54, 0.62), extent / 2 + rng.normal(0, 6))
    ill = int(rng.choice(sides))
    cysts: list[Cyst] = []
    for side in sides:
        lateral = side * size * rng.uniform(60, 76)
        center = (spine[0] + heights[side], spine[1] + rng.normal(0, 6), spine[2] + lateral)
        count = 1 + int(rng.random() < 0.12) if side == ill else int(rng.random() < 0.06)
        radii = [draw_radius(rng, tumor_radius) for _ in range(count)]
        cysts += draw_kidney(rng, labels, (spacing_z, spacing_xy, spacing_xy), center, length[side], side, radii)
    return labels, cysts


def draw_kidney(
    rng: np.random.Generator,
    labels: NDArray[np.uint8],
    spacing: Triple,
    center: Triple,
    length: float,
    side: int,
    tumors: list[float],
) -> list[Cyst]:
    """Draw a kidney at `center` (z, y, x mm) into `labels`, tumors 2 and cysts 1; returns its cysts."""
    half = (length / 2, length * rng.uniform(0.24, 0.34), length * rng.uniform(0.17, 0.25))
    growth = [(radius, rng.uniform(0.3, 1.05) + 0.3 * min(radius / half[1], 1) * rng.random()) for radius in tumors]
    reach = half[0] + 12 + max([2 * radius for radius, _ in growth], default=0)
    whole = Lattice.of_voxels(labels.shape, spacing)
    where = whole.box(center, (reach, 0.75 * reach, 0.75 * reach))
    lattice = whole.part(where)
    if min(lattice.shape) < 2:
        return []
    a, b, c = local_axes(rng, lattice, center, half[0], side)
    rough = smooth_noise(rng, lattice, (18, 15, 15))
    kidney = ellipsoid(a, b, c, half) + rng.uniform(0.5, 1.6) * rough
    sinus = ellipsoid(a, b, c + 0.75 * half[2], (0.5 * half[0], 0.55 * half[1], rng.uniform(0.7, 1.15) * half[2]))
    # Only the fat of the sinus is background; its vessels and calyces keep the kidney's label.
    branches = smooth_noise(rng, lattice, (9, 7, 7))
    fat = (sinus + 4 * rough < 0) & (branches > rng.uniform(-0.8, 0.2))
    inside = (kidney < 0) & ~fat
    cysts, shapes = draw_cysts(rng, lattice, center, half, side)
    for shape in shapes:
        inside |= shape < 0
    view = labels[where]
    view[inside] = 1
    for radius, out in growth:
        view[draw_tumor(rng, lattice, center, half, side, radius, out) < 0] = 2
    return cysts


def local_axes(rng: np.random.Generator, lattice: Lattice, center: Triple, half: float, side: int) -> tuple[Field, Field, Field]:
    """Compute coordinates (mm) along a bean's length, front to back and medial to lateral."""
    z, y, x = lattice.points
    z, y, x = z - center[0], y - center[1], side * (x - center[2])
    lean, nod, turn = rng.uniform(0.05, 0.4), rng.uniform(-0.05, 0.35), rng.uniform(0.1, 0.8)
    # The upper pole lies medial and behind; the hilum looks forward by `turn`.
    x = x + lean * z
    y = y - nod * z
    b = np.cos(turn) * y - np.sin(turn) * x
    c = np.cos(turn) * x + np.sin(turn) * y
    c = c - rng.uniform(2, 8) * (1 - 2 * (z / half) ** 2)
    return np.broadcast_to(z, lattice.shape), b.astype(np.float32), c.astype(np.float32)


def draw_radius(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Draw the radius of a tumor in mm: small ones are common, large ones are not."""
    low, high = np.log(limits)
    return float(np.exp(np.clip(rng.normal((low + high) / 2, (high - low) / 4), low, high)))


def draw_cyst_radius(rng: np.random.Generator) -> float:
    """Draw the radius of a cyst in mm."""
    return float(np.clip(np.exp(rng.normal(np.log(7), 0.6)), 2.5, 30))


def draw_tumor(
    rng: np.random.Generator, lattice: Lattice, center: Triple, half: Triple, side: int, radius: float, out: float
) -> Field:
    """Draw a lumpy ball on a kidney's side, front or pole, off the spine, as a signed distance (mm)."""
    direction = rng.normal(size=3)
    direction[2] = side * (abs(direction[2]) if rng.random() < 0.8 else direction[2])
    direction /= np.linalg.norm(direction)
    z, y, x = (float(m + out * h * d) for m, h, d in zip(center, half, direction, strict=True))
    return lumpy_ball(rng, lattice, (z, y, x), radius, 0.1)


def lumpy_ball(rng: np.random.Generator, lattice: Lattice, center: Triple, radius: float, lumps: float) -> Field:
    """Draw the signed distance (mm) of a ball with axes of its own and lumps of so much of its radius."""
    z, y, x = lattice.points
    radii = (radius * rng.uniform(0.85, 1.2), radius * rng.uniform(0.85, 1.1), radius * rng.uniform(0.85, 1.1))
    cell = float(np.clip(0.8 * radius, 6, 25))
    rough = smooth_noise(rng, lattice, (cell, cell, cell))
    return ellipsoid(z - center[0], y - center[1], x - center[2], radii) + lumps * radius * rough


def draw_cysts(
    rng: np.random.Generator, lattice: Lattice, center: Triple, half: Triple, side: int
) -> tuple[list[Cyst], list[Field]]:
    """Draw cysts at or under the surface, with their signed distances (mm) on the lattice."""
    cysts, shapes = [], []
    z, y, x = lattice.points
    for _ in range(int(rng.poisson(0.9))):
        direction = rng.normal(size=3)
        direction[2] = side * abs(direction[2])
        direction /= np.linalg.norm(direction)
        radius = draw_cyst_radius(rng)
        out = rng.uniform(0.6, 1.0)
        mid = [float(m + out * h * d) for m, h, d in zip(center, half, direction, strict=True)]
        cysts.append(Cyst((mid[0], mid[1], mid[2]), radius))
        shapes.append(np.sqrt((z - mid[0]) ** 2 + (y - mid[1]) ** 2 + (x - mid[2]) ** 2) - radius)
    return cysts, shapes


def label_cysts(labels: NDArray[np.uint8], cysts: list[Cyst], spacing: Triple, label: int) -> None:
    """Give cysts a label of their own, in place, where they are kidney so far: a ball each.

    Painted cysts are up to 15 % narrower and 10 % wider than that in the plane.
    """
    for cyst in cysts:
        window = tuple(
            slice(max(0, int((middle - cyst.radius) / step)), max(0, int((middle + cyst.radius) / step) + 2))
            for middle, step in zip(cyst.center, spacing, strict=True)
        )
        part = labels[window]
        z, y, x = (
            (np.arange(n) + side.start) * step - middle
            for n, side, step, middle in zip(part.shape, window, spacing, cyst.center, strict=True)
        )
        inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= cyst.radius**2
        part[inside & (part == KIDNEY)] = label
