"""Colon and small bowel: winding tubes with wall, content of every kind, and gas that rises."""

from __future__ import annotations

import numpy as np

from kits.painter.canvas import FINE, HAUSTRA, LUMPS, Canvas
from kits.painter.fields import Field, Triple
from kits.painter.phases import Contrast

# In 160 mm of a thin belly of common size.
SMALL_LOOPS = (70, 150)


def paint_bowel(canvas: Canvas) -> None:
    """Paint ascending, transverse and descending colon, then loops of small bowel before the kidneys."""
    rng, body = canvas.rng, canvas.body
    for points, radius in colon(canvas):
        kind = rng.choice(["feces", "gas", "fluid", "contrast"], p=[0.5, 0.25, 0.15, 0.1])
        paint_loop(canvas, points, radius, str(kind), haustra=0.35)
    # Pieces of small bowel: fat takes their room in a large belly.
    low, high = max(float(canvas.lattice.z[0]), -220.0), min(float(canvas.lattice.z[-1]), 50.0)
    crowd = (1 - 0.6 * body.lean) * body.half_width * body.front / (165 * 110) * max(high - low, 10.0) / 160
    kinds = rng.dirichlet([1.6, 1.0, 0.7, 0.5])
    if canvas.happens(0.3):
        kinds = 0.35 * kinds + 0.65 * np.array([0.0, 0.0, 1.0, 0.0])  # a patient who drank the contrast in time
    for _ in range(int(rng.integers(*SMALL_LOOPS) * crowd)):
        kind = rng.choice(["tissue", "fluid", "contrast", "gas"], p=kinds)
        paint_loop(canvas, small_loop(canvas), float(rng.uniform(7, 14)), str(kind), haustra=0.15)


def colon(canvas: Canvas) -> list[tuple[list[Triple], float]]:
    """Draw center lines (w, v, u) and radii (mm) of the pieces of colon."""
    rng, body = canvas.rng, canvas.body
    edge = 0.62 * body.half_width
    pieces = []
    for side, top in ((-1, rng.uniform(-45, 15)), (1, rng.uniform(0, 60))):
        lateral = side * edge * rng.uniform(0.9, 1.1)
        points = [(w, float(rng.normal(-12, 9)), lateral + float(rng.normal(0, 6))) for w in np.arange(-170, top, 32.0)]
        pieces.append(([*points, (float(top), -30.0, lateral)], float(rng.uniform(13, 23))))
    front = -0.62 * body.front
    sag = rng.uniform(0, 50)
    across = [
        (float(-10 - sag * np.cos(u / edge * 1.5) + rng.normal(0, 8)), float(front + 18 * (u / edge) ** 2), float(u))
        for u in np.linspace(-edge, edge, 9)
    ]
    pieces.append((across, float(rng.uniform(13, 22))))
    return pieces


def small_loop(canvas: Canvas) -> list[Triple]:
    """Draw a random walk (w, v, u) in the front of the belly, mostly in the plane of the slice."""
    rng, body = canvas.rng, canvas.body
    low, high = max(float(canvas.lattice.z[0]), -220.0), min(float(canvas.lattice.z[-1]), 45.0)
    point = np.array(
        [rng.uniform(low, max(high, low + 1)), rng.uniform(-0.72 * body.front, -4), rng.uniform(-0.66, 0.7) * body.half_width]
    )
    heading = rng.normal(size=3)
    points = []
    for _ in range(int(rng.integers(2, 8))):
        heading = 0.65 * heading / np.linalg.norm(heading) + rng.normal(0, [0.35, 0.5, 0.5])
        point = point + 17 * heading / np.linalg.norm(heading)
        point[1] = np.clip(point[1], -0.75 * body.front, 8)
        points.append((float(point[0]), float(point[1]), float(point[2])))
    return points


def paint_loop(canvas: Canvas, points: list[Triple], radius: float, kind: str, haustra: float) -> None:
    """Paint wall and content of one piece of bowel, kept inside the belly."""
    rng = canvas.rng
    where, distance = canvas.path(points, radius)
    if distance is None:
        return
    distance = distance + haustra * radius * canvas.noise(*HAUSTRA)[where]
    distance = np.maximum(distance, canvas.inside[where] + 3)
    fine = canvas.noise(*FINE)[where]
    wall = canvas.contrast["bowel_wall"] + rng.normal(0, 8)
    canvas.paint(where, canvas.cover(distance), wall + 6 * fine)
    thickness = rng.uniform(1.5, 4.0)
    lumen = canvas.cover(distance + thickness)
    canvas.paint(where, lumen, content(rng, canvas.contrast, kind, fine, canvas.noise(*LUMPS)[where]))
    if kind != "tissue" and rng.random() < (0.25 if kind == "fluid" else 0.45):
        # Gas rises to the front; its level is horizontal, so it is cut in unbent coordinates.
        v = canvas.lattice.y[where[1]][None, :, None]
        level = min(point[1] for point in points) - radius + rng.uniform(0.2, 1.6) * radius
        canvas.paint(where, lumen * np.clip((level - v) / canvas.soft + 0.5, 0, 1), rng.uniform(-990, -900))


def content(rng: np.random.Generator, contrast: Contrast, kind: str, fine: Field, lumps: Field) -> Field:
    """Draw HU of what is in the bowel: collapsed folds, fluid, oral contrast, feces with bubbles, gas."""
    if kind == "tissue":
        return contrast["bowel_wall"] + rng.uniform(-35, 5) + rng.uniform(5, 28) * lumps
    if kind == "fluid":
        return rng.uniform(0, 40) + rng.uniform(2, 10) * fine
    if kind == "contrast":
        return rng.uniform(100, 450) + rng.uniform(5, 60) * lumps
    if kind == "gas":
        return np.full_like(fine, rng.uniform(-990, -900))
    bubbles = np.clip((lumps - rng.uniform(0.3, 1.2)) / 0.3, 0, 1)
    return rng.uniform(10, 90) + rng.uniform(10, 30) * fine - rng.uniform(300, 800) * bubbles
