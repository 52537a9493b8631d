"""Decoys that networks take for kidneys and tumors: masses, pelvic organs, arms, metal."""

from __future__ import annotations

import numpy as np

from kits.painter.canvas import FINE, SLOW, WHOLE, Canvas
from kits.painter.fields import Triple, smooth_noise
from kits.painter.kidney import one_tumor

METAL_HU = (1800.0, 3071.0)
# Far below the kidneys (w, mm) the pelvis begins.
PELVIS_W = -125.0


def paint_inner_decoys(canvas: Canvas, share: float) -> None:
    """Paint masses and pelvic organs before muscles and bones; `share` 0 draws no random number."""
    if share == 0:
        return
    rng = canvas.rng
    for kidney in canvas.body.kidneys:
        side = kidney.side or 1
        if rng.random() < 0.3 * share:  # adrenal carcinoma, pheochromocytoma, sarcoma above the kidney
            size = float(rng.uniform(14, 55))
            place = (
                kidney.high[0] + rng.uniform(0.1, 0.8) * size,
                kidney.center[1] - rng.uniform(0, 25),
                side * rng.uniform(25, 55),
            )
            paint_large_mass(canvas, place, size)
    if rng.random() < 0.2 * share:  # nodes and sarcomas along the great vessels
        for _ in range(int(rng.integers(1, 6))):
            place = (rng.uniform(-110, 60), rng.uniform(-45, -10), rng.normal(0, 35))
            paint_large_mass(canvas, place, float(rng.uniform(7, 32)))
    if rng.random() < 0.25 * share:  # a large spleen, down beside the kidney
        center = (rng.uniform(-20, 40), rng.uniform(-20, 10), 0.62 * canvas.body.half_width)
        radii = (rng.uniform(60, 100), rng.uniform(40, 60), rng.uniform(26, 40))
        where = canvas.around(center, radii)
        if not canvas.empty(where):
            shape = np.maximum(canvas.ellipsoid(where, center, radii), canvas.inside[where] + 3)
            shape = np.maximum(shape, 1.5 - canvas.distance[where])
            canvas.paint(where, canvas.cover(shape), canvas.contrast["spleen"] + 4 * canvas.noise(*FINE)[where])
    if float(canvas.lattice.z[0]) < PELVIS_W:
        paint_pelvic_organs(canvas)


def paint_large_mass(canvas: Canvas, center: Triple, size: float) -> None:
    """Paint one mass with the texture of a renal tumor, off the kidneys and inside the wall."""
    radii = (size * canvas.rng.uniform(0.8, 1.2), size * canvas.rng.uniform(0.75, 1.1), size * canvas.rng.uniform(0.75, 1.1))
    where = canvas.around(center, radii)
    if canvas.empty(where) or any(part.stop - part.start < 2 for part in where):
        return
    shape = canvas.ellipsoid(where, center, radii) + 0.1 * size * canvas.noise(*SLOW)[where]
    shape = np.maximum(np.maximum(shape, canvas.inside[where] + 2), 0.5 - canvas.distance[where])
    box = canvas.lattice.part(where)
    fine = smooth_noise(canvas.rng, box, (4, 3, 3))
    canvas.paint(where, canvas.cover(shape), one_tumor(canvas.rng, np.maximum(-shape, 0), box, canvas.contrast, fine))


def paint_pelvic_organs(canvas: Canvas) -> None:
    """Paint a bladder of urine or contrast, and a uterus with fibroids and cysts or a prostate."""
    rng, contrast = canvas.rng, canvas.contrast
    low = PELVIS_W - rng.uniform(60, 100)
    size = float(rng.uniform(22, 58))
    bladder = (low, -35 + rng.normal(0, 8), rng.normal(0, 6))
    radii = (size * rng.uniform(0.6, 1.0), size * rng.uniform(0.7, 1.0), size)
    canvas.blob(bladder, (radii[0] + 3, radii[1] + 3, radii[2] + 3), contrast["muscle"], 4)
    canvas.blob(bladder, radii, contrast["collecting"] if rng.random() < 0.8 else float(rng.uniform(0, 60)), 2)
    if rng.random() < 0.5:
        size = float(rng.uniform(18, 45))
        uterus = (low + rng.uniform(5, 45), 5 + rng.normal(0, 8), rng.normal(0, 12))
        hu = contrast["muscle"] + rng.uniform(0, 70) * (contrast.phase != "none")
        canvas.blob(uterus, (size * rng.uniform(0.8, 1.5), size * 0.8, size), hu, 9)
        for _ in range(int(rng.poisson(1.5))):
            r = float(rng.uniform(6, 35))
            spot = (uterus[0] + rng.normal(0, size), uterus[1] + rng.normal(0, 12), uterus[2] + rng.normal(0, size))
            if rng.random() < 0.6:
                paint_large_mass(canvas, spot, r)
            else:
                canvas.blob(spot, (r, r, r), float(rng.uniform(0, 25)), 2)
    else:
        r = float(rng.uniform(14, 30))
        canvas.blob((low - 35, 0.0, 0.0), (r, 0.8 * r, r), contrast["muscle"] + 15, 8)


def paint_outer_decoys(canvas: Canvas, share: float) -> None:
    """Paint arms beside the body, and metal in it with its streaks, over everything else."""
    if share == 0:
        return
    rng = canvas.rng
    if rng.random() < 0.25 * share:
        for side in (-1, 1) if rng.random() < 0.7 else (int(rng.choice([-1, 1])),):
            paint_arm(canvas, side)
    if rng.random() < 0.15 * share:
        paint_metal(canvas)


def paint_arm(canvas: Canvas, side: int) -> None:
    """Paint an arm along the body, in the air only: skin and fat, muscle, one bone or two."""
    rng, body = canvas.rng, canvas.body
    radius = float(rng.uniform(30, 48))
    v, u = rng.uniform(-25, 45), side * (body.half_width + radius * rng.uniform(0.8, 1.15) + 4) + body.shift
    slope = rng.uniform(-0.15, 0.15)
    where = canvas.lattice.box((0.0, v, u), (1e4, radius + 60, radius + 60))
    if canvas.empty(where):
        return
    y, x = canvas.v[where] - v - slope * canvas.w[where], canvas.u[where] - u
    air = np.clip(-(canvas.hu[where] + 700) / 200, 0, 1)
    distance = np.sqrt((0.9 * y) ** 2 + x**2) - radius
    canvas.paint(where, air * canvas.cover(distance), canvas.fat)
    flesh = canvas.contrast["muscle"] + 6 * canvas.noise(*FINE)[where]
    canvas.paint(where, air * canvas.cover(distance + rng.uniform(4, 12)), flesh)
    pair = rng.random() < 0.5
    for shift in (-0.35 * radius, 0.35 * radius) if pair else (0.0,):
        bone = np.sqrt((y - 0.5 * shift) ** 2 + (x - shift) ** 2) - (6 if pair else 10)
        canvas.paint(where, air * canvas.cover(bone), np.where(bone > -3, 900.0, 60.0))


def paint_metal(canvas: Canvas) -> None:
    """Paint screws in the spine, a hip or a clip, and bright and dark streaks in their slices."""
    rng = canvas.rng
    kind = str(rng.choice(["screws", "clip", "hip"], p=[0.4, 0.4, 0.2]))
    rods: list[tuple[Triple, Triple, float]] = []
    if kind == "screws":
        for w in np.arange(rng.uniform(-60, 20), rng.uniform(20, 80), rng.uniform(30, 38)):
            rods += [((float(w), 32.0, side * 26.0), (float(w) + 3, -6.0, side * 9.0), 2.8) for side in (-1, 1)]
    elif kind == "clip":
        for _ in range(int(rng.integers(1, 5))):
            place = (rng.uniform(-60, 80), rng.uniform(-60, 0), rng.normal(0, 60))
            rods.append((place, (place[0], place[1] + rng.uniform(2, 8), place[2] + rng.uniform(-5, 5)), 1.3))
    else:
        side = int(rng.choice([-1, 1]))
        rods.append(((-240.0, -8.0, side * 88.0), (-300.0, -2.0, side * 105.0), 12.0))
    hu = rng.uniform(*METAL_HU)
    in_body = np.clip((canvas.hu + 500) / 300, 0, 1)
    streaks = np.zeros_like(canvas.hu)  # photons that the metal swallows are missing along the rays through it
    y, x = canvas.lattice.y[:, None], canvas.lattice.x[None, :]
    for start, stop, radius in rods:
        angle = np.arctan2(y - start[1], x - start[2])
        away = np.hypot(y - start[1], x - start[2])
        rays = sum(rng.normal() * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5, 8, 13, 21))
        held = np.exp(-(((canvas.lattice.z - (start[0] + stop[0]) / 2) / (radius + 4 + abs(stop[0] - start[0]) / 2)) ** 2))
        streaks += held[:, None, None] * ((25 + 10 * radius) * rays / (1 + away / 30))
    canvas.paint(WHOLE, in_body, canvas.hu + np.clip(streaks, -400, 400))
    for start, stop, radius in rods:
        canvas.tube([start, stop], radius, hu)
