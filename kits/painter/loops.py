"""Loops of bowel in the fat beside the kidneys of a real CT; oral contrast makes them as bright."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kits.painter.bowel import content
from kits.painter.fields import Field, Lattice, resample, smooth_noise
from kits.painter.grain import Grain
from kits.painter.lesions import around, blend
from kits.painter.phases import Contrast
from kits.painter.real_scan import RealScan

KINDS = {"contrast": 0.5, "tissue": 0.2, "fluid": 0.15, "feces": 0.15}
# Half a loop's length (z, y, x; mm, one standard deviation): most lie in the plane.
REACH_MM = (8.0, 14.0, 14.0)
# Fat that is left between a loop and a kidney.
CLEAR_MM = 1.5
# Behind the kidneys' middle it reaches so far at most.
BEHIND_MM = 12.0


def set_loops(rng: np.random.Generator, scan: RealScan, contrast: Contrast, grain: Grain, count: int) -> int:
    """Set up to `count` loops of bowel beside the kidneys, and count those that had room."""
    return sum(set_loop(rng, scan, contrast, grain) for _ in range(count))


def set_loop(rng: np.random.Generator, scan: RealScan, contrast: Contrast, grain: Grain) -> bool:
    """Set one loop into the fat, with wall, content and gas; tell whether there was room."""
    radius = float(rng.uniform(7, 17))
    y_mm = scan.rough.points[1]
    back = float(np.broadcast_to(y_mm, scan.hull.shape)[scan.hull < 0].mean())  # the kidneys' middle; bowel lies before it
    near = (scan.hull > 0.7 * radius) & (scan.hull < radius + 12) & (y_mm < back)
    room = np.argwhere(near & (scan.firm > 0.5 * radius))
    if not len(room):
        return False
    middle = np.array([axis[k] for axis, k in zip(scan.rough.axes, room[rng.integers(len(room))], strict=True)])
    points = [middle - abs(rng.normal()) * rng.normal(0, REACH_MM), middle, middle + rng.normal(0, REACH_MM)]
    longest = max(float(np.linalg.norm(point - middle)) for point in points)
    z, y, x = (float(value) for value in middle)
    lattice = around(scan, (z, y, x), longest + 1.3 * radius + 4)
    distance = tube(lattice, points) - radius + 0.2 * radius * smooth_noise(rng, lattice, (16, 14, 14))
    # It gives way to firm ground and to the kidney, and so may touch both.
    distance = np.maximum(distance, 2 - resample(scan.firm, scan.rough, lattice))
    distance = np.maximum(distance, CLEAR_MM - resample(scan.hull, scan.rough, lattice))
    distance = np.maximum(distance, lattice.points[1] - back - BEHIND_MM)
    fine, lumps = smooth_noise(rng, lattice, (6, 5, 5)), smooth_noise(rng, lattice, (5, 4, 4))
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    value = contrast["bowel_wall"] + rng.normal(0, 8) + 6 * fine
    lumen = np.clip(0.5 - (distance + rng.uniform(1.5, 4)) / lattice.step[2], 0, 1)
    value = value + lumen * (content(rng, contrast, kind, fine, lumps) - value)
    if kind != "tissue" and rng.random() < 0.3:  # gas rises to the front, its level is horizontal
        level = min(float(point[1]) for point in points) + rng.uniform(-0.8, 0.6) * radius
        front = np.clip((level - lattice.points[1]) / lattice.step[1] + 0.5, 0, 1)
        value = value + lumen * front * (rng.uniform(-990, -900) - value)
    blend(rng, scan, lattice, distance, value.astype(np.float32), grain)
    return True


def tube(lattice: Lattice, points: list[Field]) -> Field:
    """Compute the distance (mm) of the lattice's points to a line from point to point (z, y, x)."""
    best = np.full(lattice.shape, np.inf, np.float32)
    for start, stop in pairwise(points):
        along = stop - start
        from_start = [axis - low for axis, low in zip(lattice.points, start, strict=True)]
        t = sum(part * step for part, step in zip(from_start, along, strict=True)) / (along @ along + 1e-6)
        t = np.clip(t, 0, 1)
        away = sum((part - t * step) ** 2 for part, step in zip(from_start, along, strict=True))
        np.minimum(best, np.sqrt(away), out=best)
    return best
