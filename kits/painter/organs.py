"""Liver, spleen, stomach, pancreas, vessels, mesentery, adrenals and masses that are not renal."""

from __future__ import annotations

import numpy as np

from kits.painter.canvas import FINE, HAUSTRA, LUMPS, SLOW, WHOLE, Canvas
from kits.painter.fields import Field, Slices, tubes


def paint_mesentery(canvas: Canvas) -> None:
    """Paint small vessels and nodes in the fat of the belly."""
    rng = canvas.rng
    vessel = tubes(canvas.noise("vessel1", (16, 13, 13)), canvas.noise("vessel2", (16, 13, 13)), rng.uniform(0.12, 0.34))
    belly = canvas.cover(canvas.inside + 6) * (canvas.v < 25)
    canvas.paint(WHOLE, vessel * belly * rng.uniform(0.5, 1), 0.6 * canvas.contrast["portal_vein"] + 20)


def organ_texture(canvas: Canvas, where: Slices, hu: float, vessel_hu: float) -> Field:
    """Paint parenchyma of `hu` with faint mottling and vessels of `vessel_hu`."""
    rng = canvas.rng
    vessels = tubes(
        canvas.noise("vessel1", (16, 13, 13))[where], canvas.noise("vessel3", (30, 26, 26))[where], rng.uniform(0.12, 0.3)
    )
    base = hu + rng.uniform(2, 6) * canvas.noise(*FINE)[where] + 3 * canvas.noise(*SLOW)[where]
    return base + vessels * (vessel_hu - base)


def paint_stomach(canvas: Canvas) -> None:
    rng, size = canvas.rng, canvas.body.half_width / 165
    center = (rng.uniform(45, 85), -55 * size + rng.normal(0, 8), 48 * size + rng.normal(0, 8))
    radii = (rng.uniform(35, 55), rng.uniform(24, 42), rng.uniform(28, 46))
    where = canvas.around(center, radii)
    if canvas.empty(where):
        return
    shape = np.maximum(canvas.ellipsoid(where, center, radii), canvas.inside[where] + 3)
    fine, lumps = canvas.noise(*FINE)[where], canvas.noise(*LUMPS)[where]
    canvas.paint(where, canvas.cover(shape), canvas.contrast["bowel_wall"] + 8 * fine)
    lumen = canvas.cover(shape + rng.uniform(3, 7))
    kind = rng.choice(["water", "food", "contrast"], p=[0.45, 0.35, 0.2])
    value = {
        "water": rng.uniform(-5, 30) + 4 * fine,
        "food": rng.uniform(10, 60) + 35 * lumps,
        "contrast": rng.uniform(120, 400) + 20 * lumps,
    }
    canvas.paint(where, lumen, value[str(kind)])
    v = canvas.lattice.y[where[1]][None, :, None]
    level = center[1] - radii[1] * rng.uniform(0.1, 0.9)
    canvas.paint(where, lumen * np.clip((level - v) / canvas.soft + 0.5, 0, 1), -960.0)


def paint_spleen(canvas: Canvas) -> None:
    rng, size = canvas.rng, canvas.body.half_width / 165
    center = (rng.uniform(35, 75), rng.uniform(0, 18), (92 + rng.normal(0, 6)) * size)
    radii = (rng.uniform(38, 62), rng.uniform(32, 52), rng.uniform(22, 36))
    where = canvas.around(center, radii)
    if canvas.empty(where):
        return
    shape = canvas.ellipsoid(where, center, radii)
    scoop = canvas.ellipsoid(where, (center[0] - 5, center[1] - 12, center[2] - 34), (radii[0] + 10, radii[1], 24))
    shape = np.maximum(np.maximum(shape, -scoop), canvas.inside[where] + rng.uniform(1, 5))
    value = organ_texture(canvas, where, canvas.contrast["spleen"], canvas.contrast["portal_vein"])
    if canvas.contrast.phase == "corticomedullary":
        # Early on, red and white pulp fill at different speeds: bands.
        value = value + rng.uniform(0, 35) * np.sin(2.5 * canvas.noise(*HAUSTRA)[where])
    canvas.paint(where, canvas.cover(shape), value)


def paint_pancreas(canvas: Canvas) -> None:
    rng, size = canvas.rng, canvas.body.half_width / 165
    bend = [(-12.0, -38.0, -32.0), (2.0, -48.0, -14.0), (12.0, -50.0, 8.0), (18.0, -44.0, 34.0), (28.0, -22.0, 66.0)]
    points = [(w + rng.normal(0, 5) + 8, v * size + rng.normal(0, 4), u * size) for w, v, u in bend]
    where, distance = canvas.path(points, rng.uniform(8, 14))
    if distance is not None:
        fat = np.clip((canvas.noise(*LUMPS)[where] - rng.uniform(0.2, 2.0)) / 0.5, 0, 1)
        value = canvas.contrast["pancreas"] + 6 * canvas.noise(*FINE)[where]
        canvas.paint(where, canvas.cover(distance + 3 * canvas.noise(*LUMPS)[where]), value - 110 * fat)
    duodenum = [(18.0, -42.0, -42.0), (-5.0, -34.0, -50.0), (-35.0, -28.0, -46.0), (-48.0, -30.0, -15.0), (-45.0, -34.0, 20.0)]
    where, distance = canvas.path([(w + rng.normal(0, 5), v * size, u * size) for w, v, u in duodenum], rng.uniform(9, 14))
    if distance is not None:
        canvas.paint(where, canvas.cover(distance), canvas.contrast["bowel_wall"])
        inner = rng.choice([rng.uniform(0, 40), canvas.contrast["bowel_wall"] - 15, rng.uniform(100, 300)], p=[0.5, 0.35, 0.15])
        canvas.paint(where, canvas.cover(distance + 3), float(inner) + 10 * canvas.noise(*LUMPS)[where])


def paint_liver(canvas: Canvas) -> None:
    rng, size = canvas.rng, canvas.body.half_width / 165
    right = (rng.uniform(45, 75), -28 * size, -78 * size)
    radii = (rng.uniform(70, 105), rng.uniform(70, 88) * size, rng.uniform(62, 78) * size)
    where = canvas.around((right[0] + 10, right[1] - 10, right[2] + 40), (radii[0] + 20, radii[1] + 35, 170))
    if canvas.empty(where):
        return
    shape = canvas.ellipsoid(where, right, radii)
    left = (right[0] + rng.uniform(15, 35), -68 * size, rng.uniform(-15, 20))
    lobe = canvas.ellipsoid(where, left, (rng.uniform(32, 52), rng.uniform(30, 42) * size, rng.uniform(55, 80) * size))
    shape = np.minimum(shape, lobe)
    # The hollow for kidney, duodenum and porta.
    hollow = canvas.ellipsoid(where, (right[0] - 42, -28, -30 * size), (50, 42, rng.uniform(20, 34)))
    shape = np.maximum(np.maximum(shape, -0.8 * hollow), canvas.inside[where] + rng.uniform(0, 4))
    liver = canvas.contrast["liver"] - (rng.uniform(10, 60) if rng.random() < 0.2 else 0)
    value = organ_texture(canvas, where, liver, 0.8 * canvas.contrast["portal_vein"] + 0.2 * liver)
    canvas.paint(where, canvas.cover(shape), value)
    for _ in range(int(rng.poisson(0.8))):
        spot = (right[0] + rng.normal(0, 30), right[1] + rng.normal(0, 30), right[2] + rng.normal(0, 25))
        canvas.blob(spot, (r := float(rng.uniform(3, 18)), r, r), float(rng.choice([8, liver - 40, liver + 45])), 6)
    if rng.random() < 0.7:
        r = float(rng.uniform(11, 20))
        spot, bile = (right[0] - 55, -62 * size, -52 * size + rng.normal(0, 6)), rng.uniform(0, 25)
        if canvas.happens(0.3):
            bile = rng.uniform(30, 220)  # sludge, or contrast that the liver passed on
        canvas.blob(spot, (1.5 * r, r, r), bile, 2)


def paint_vessels(canvas: Canvas) -> None:
    """Paint aorta, cava, their branches to the kidneys, mesenteric and splenic vessels."""
    rng, contrast = canvas.rng, canvas.contrast
    aorta_u, cava_u = rng.normal(8, 4), rng.normal(-20, 4)
    front = -rng.uniform(25, 31)
    aorta_r, cava_r = rng.uniform(7.5, 13), rng.uniform(8, 13)
    high, low, fork = float(canvas.lattice.z[-1]) + 20, float(canvas.lattice.z[0]) - 20, -rng.uniform(95, 125)
    for kidney in canvas.body.kidneys:
        side = kidney.side or 1
        w, v, u = kidney.hilum
        for hu, start, radius, rise in (
            ("renal_vein", cava_u, rng.uniform(3.5, 6), 2),
            ("aorta", aorta_u, rng.uniform(2, 3.3), 8),
        ):
            origin = (float(np.clip(w, -25, 25)) + rise, front, start + side * 6)
            middle = (w + rise / 2, (front + v) / 2 - 4 - (10 if side > 0 and hu == "renal_vein" else 0), (start + u) / 2)
            canvas.tube([origin, middle, (w, v, u - side * 1), (w, v + 2, u + side * 8)], radius, contrast[hu])
    canvas.tube(
        [(high, -14, -8), (90, -22, -18), (20, front + 2, cava_u), (fork, front + 2, cava_u)], cava_r, contrast["cava"], 1.15
    )
    canvas.tube([(high, -18, 12), (80, front, aorta_u + 2), (fork, front, aorta_u)], aorta_r, contrast["aorta"])
    for side in (-1, 1):
        leg = [(fork, front, aorta_u), (fork - 60, front + 12, 38 * side), (min(low, fork - 140), -30, 75 * side)]
        canvas.tube(leg, 0.6 * aorta_r, contrast["aorta"])
        canvas.tube([(w - 6, v + 8, u - 4) for w, v, u in leg], 0.65 * cava_r, contrast["cava"])
        canvas.blob((rng.uniform(-60, 0), front, aorta_u + side * aorta_r * 0.9), (5, 1.5, 1.5), rng.uniform(100, 600))
    canvas.tube([(15, front - 12, aorta_u - 2), (-90, front - 16, aorta_u - 12)], rng.uniform(2.5, 4), contrast["aorta"])
    canvas.tube([(10, front - 14, -16), (-90, front - 18, -20)], rng.uniform(4, 6), contrast["portal_vein"])
    canvas.tube(
        [(35, -48, -35), (14, front - 16, -12), (20, front - 14, 25), (32, -18, 70)], rng.uniform(4, 6.5), contrast["portal_vein"]
    )
    for side in (-1, 1):
        ureter = [(-20, -6, side * 45), (-90, -10, side * 42), (-160, -5, side * 38)]
        canvas.tube(
            [(w, v, u + float(rng.normal(0, 3))) for w, v, u in ureter], rng.uniform(1.2, 2.5), contrast["collecting"] + 20
        )


def paint_masses(canvas: Canvas) -> None:
    """Paint adrenals, and beside the kidney masses that are not renal: nodes, adenomas, small spleens."""
    rng, contrast = canvas.rng, canvas.contrast
    for kidney in canvas.body.kidneys:
        side = kidney.side or 1
        top = (kidney.high[0] + rng.uniform(-12, 8), kidney.center[1] - rng.uniform(5, 18), side * rng.uniform(26, 42))
        for _ in range(2):
            end = (top[0] - 14, top[1] + rng.uniform(4, 16), top[2] + side * rng.uniform(-4, 12))
            canvas.tube([top, end], rng.uniform(1.8, 3.5), contrast["adrenal"])
        if rng.random() < 0.22:
            r = float(rng.gamma(3, 5) + 5)
            adenoma = rng.choice([rng.uniform(-10, 20), contrast["adrenal"], rng.uniform(50, 140)])
            canvas.blob(top, (r, r * rng.uniform(0.7, 1.1), r * rng.uniform(0.7, 1.1)), float(adenoma), rng.uniform(2, 14))
        for _ in range(int(rng.poisson(0.7))):
            away = rng.normal(size=3)
            away /= np.linalg.norm(away)
            r = float(rng.gamma(2.2, 4) + 3)
            spot = [
                c + a * ((h - low) / 2 + r) for c, a, low, h in zip(kidney.center, away, kidney.low, kidney.high, strict=True)
            ]
            hu = rng.choice([contrast["bowel_wall"], contrast["spleen"], rng.uniform(20, 120), contrast["muscle"]])
            shape = (r * rng.uniform(0.7, 1.5), r * rng.uniform(0.7, 1.2), r * rng.uniform(0.7, 1.2))
            canvas.blob((spot[0], spot[1], spot[2]), shape, float(hu), rng.uniform(2, 18))
    for _ in range(int(rng.poisson(4))):
        r = float(rng.uniform(2, 9))
        canvas.blob(
            (rng.uniform(-110, 40), rng.normal(-22, 8), rng.normal(0, 26)),
            (1.5 * r, r, r),
            contrast["muscle"] + rng.normal(0, 20),
            4,
        )
