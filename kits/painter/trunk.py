"""Skin, fat under it, the muscular wall, lungs and heart, and the muscles of the back."""

from __future__ import annotations

import numpy as np

from kits.painter.canvas import FINE, SLOW, STRAND, WHOLE, Canvas
from kits.painter.fields import Field, ridges, tubes


def paint_skin_and_wall(canvas: Canvas) -> None:
    """Paint the body's outline, fat under the skin, the ring of abdominal muscles, and fat inside."""
    rng, body = canvas.rng, canvas.body
    depth, middle = (body.front + body.back) / 2, (body.back - body.front) / 2
    power = rng.uniform(2.05, 2.6)
    bulge = 1 + 0.03 * np.sin(canvas.lattice.z / rng.uniform(40, 90) + rng.uniform(0, 6))[:, None, None]
    u = abs(canvas.u - body.shift) / bulge
    # The back bends in above the spine.
    v = abs(canvas.v - middle) / bulge + rng.uniform(3, 12) * np.exp(-((canvas.u / 14) ** 2)) * (canvas.v > 0)

    def shell(width: float, half_depth: float) -> Field:
        radius = ((u / width) ** power + (v / half_depth) ** power) ** (1 / power)
        return (radius - 1) * min(width, half_depth)

    skin = shell(body.half_width, depth)
    canvas.fat = float(rng.uniform(-118, -92))
    fine, slow = canvas.noise(*FINE), canvas.noise(*SLOW)
    strands = ridges(canvas.noise(*STRAND), rng.uniform(0.04, 0.1))
    fat = canvas.fat + 6 * fine + rng.uniform(10, 70) * strands
    canvas.paint(WHOLE, canvas.cover(skin), rng.uniform(-30, 40))
    canvas.paint(WHOLE, canvas.cover(skin + rng.uniform(1.5, 2.5)), fat)

    outer = shell(body.half_width - body.fat, depth - rng.uniform(0.55, 0.95) * body.fat) + 1.2 * slow
    # Rectus in front, three flat muscles at the side with fat between the sheets; thin where the ribs are.
    flank = np.clip(u / body.half_width, 0, 1)
    middle_line = np.exp(-((canvas.u / rng.uniform(5, 12)) ** 2)) * (canvas.v < 0)
    chest = np.clip((canvas.lattice.z[:, None, None] - rng.uniform(20, 60)) / 40, 0, 1)
    ring = rng.uniform(9, 17) * (0.55 + 0.7 * flank + 0.15 * slow) * (1 - 0.75 * middle_line)
    ring = ring + chest * (rng.uniform(8, 11) - ring)
    sheets = ridges(np.mod(-outer / (0.36 * ring) + 0.25 * slow, 1) - 0.5, 0.13) * (flank > 0.4)
    value = canvas.contrast["muscle"] + 5 * fine + rng.uniform(0, 0.5) * sheets * (canvas.fat - 40)
    canvas.wall, canvas.inside = outer, outer + np.maximum(ring, 2.5)
    canvas.paint(WHOLE, canvas.cover(outer), value)
    canvas.paint(WHOLE, canvas.cover(canvas.inside), fat)


def paint_chest(canvas: Canvas) -> None:
    """Paint lungs above the diaphragm, low along the wall and high over the liver, with the heart."""
    rng = canvas.rng
    top = rng.uniform(95, 140)
    if float(canvas.lattice.z[-1]) < 10:
        return
    where = canvas.lattice.box((1000.0, 0.0, 0.0), (990.0, 1e3, 1e3))
    w, v, u = canvas.w[where], canvas.v[where], canvas.u[where]
    slow, inside = canvas.noise(*SLOW)[where], canvas.inside[where]
    recess = rng.uniform(25, 65) + np.clip(-(v + 10), 0, 80) * rng.uniform(0.3, 0.8)
    height = recess + (top + np.float32(10) * (u < 0) - recess) * (1 - np.exp(inside / rng.uniform(14, 30))) + 5 * slow
    lung = np.maximum(inside + 1.5, 0.5 * (height - w))
    lung = np.maximum(lung, 24 - np.sqrt((u - 4) ** 2 + (0.8 * (v + 8)) ** 2))
    lung = np.maximum(lung, 4 - canvas.distance[where])
    vessels = tubes(canvas.noise("vessel1", (16, 13, 13))[where], canvas.noise("vessel2", (16, 13, 13))[where], 0.16)
    air = rng.uniform(-900, -780) + 30 * slow + rng.uniform(500, 850) * vessels
    canvas.paint(where, canvas.cover(lung), air)
    heart = np.maximum(canvas.ellipsoid(where, (top + 62, -62, 20), (48, 48, 58)), inside + 3)
    canvas.paint(where, canvas.cover(heart - 5), canvas.fat)
    blood = canvas.contrast["aorta"]
    canvas.paint(where, canvas.cover(heart), np.where(slow > -0.2, blood, 0.5 * blood + 45))


def fibers(canvas: Canvas, fatty: float) -> Field:
    """Paint muscle HU with thin streaks of fat along the fibers; `fatty` 0 to 1."""
    streak = ridges(canvas.noise("fiber", (40, 6, 9)), 0.04 + 0.22 * fatty)
    marbling = 0.25 * fatty * np.clip(canvas.noise(*SLOW) + 0.5, 0, 2)
    share = np.clip((0.15 + 0.7 * fatty) * streak + marbling, 0, 0.9)
    return canvas.contrast["muscle"] + 5 * canvas.noise(*FINE) + share * (canvas.fat - 45)


def paint_back_muscles(canvas: Canvas) -> None:
    """Paint the crura of the diaphragm, erector spinae, multifidus, quadratus lumborum and psoas."""
    rng, body = canvas.rng, canvas.body
    value = fibers(canvas, float(rng.beta(1.2, 2.6)))
    size = rng.uniform(0.88, 1.15) * float(np.clip(body.half_width / 165, 0.85, 1.15))
    reach = body.back - 0.55 * body.fat - 7
    half = float(np.clip((reach - 20) / 2, 14, 34))
    wide, strength = rng.uniform(30, 38) * size, rng.uniform(0.75, 1.12)
    gap = 0.3 + 2.5 * body.lean
    for side in (-1, 1):
        where = canvas.lattice.box((0.0, 10.0, side * 62.0), (1e4, 80.0, 62.0))
        if canvas.empty(where):
            continue
        w, v, across = canvas.w[where], canvas.v[where], side * canvas.u[where]
        free, flesh = gap - canvas.distance[where], value[where]
        erector = ((abs(v - 20 - half) / half) ** 3 + (abs(across - wide - 2) / wide) ** 3) ** (1 / 3)
        erector = np.maximum((erector - 1) * half, canvas.wall[where] + 1)
        canvas.paint(where, canvas.cover(np.maximum(erector, free)), flesh)
        # A wedge between multifidus and longissimus shows as a line of fat.
        line = ridges(across - 16 - 0.25 * (v - 20), 1.4) * canvas.cover(erector + 4) * (v > 25)
        canvas.paint(where, rng.uniform(0, 0.8) * line, canvas.fat)
        quadratus = np.sqrt(((across - 62 * size) / (19 * size)) ** 2 + ((v - 25) / (8.5 * size)) ** 2) - 1
        quadratus = np.maximum(quadratus * 9, np.maximum(w - 35, -w - 95))
        canvas.paint(where, canvas.cover(np.maximum(quadratus, free)), flesh)
        drop = np.clip((28 - w) / 110, 0, 1.3)
        girth = (5 + 19 * drop) * size * strength
        forward = 26 * np.clip(drop - 0.85, 0, 1)
        psoas = np.sqrt((across - 25 - 17 * drop) ** 2 + (0.8 * (v - 2 + forward)) ** 2) - girth
        canvas.paint(where, canvas.cover(np.maximum(np.maximum(psoas, w - 30), free)), flesh)
        crus = 5 * (np.sqrt(((across - 11) / 6) ** 2 + ((v + 20) / 12) ** 2) - 1)
        canvas.paint(where, canvas.cover(np.maximum(np.maximum(crus, -w - 25), free)), flesh)
