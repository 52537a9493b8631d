"""Skin, fat, muscles, bones, lungs and the table."""

from __future__ import annotations

import numpy as np

from kits.data.canvas import Canvas
from kits.data.fields import Field

Whole = (slice(None), slice(None), slice(None))


def paint_skin_and_wall(canvas: Canvas) -> None:
    """Body outline, fat under the skin, the ring of abdominal muscles, and fat inside it."""
    rng, body = canvas.rng, canvas.body
    depth, middle = (body.front + body.back) / 2, (body.back - body.front) / 2
    power = rng.uniform(2.1, 2.6)
    bulge = 1 + 0.03 * np.sin(canvas.lattice.z / rng.uniform(40, 90) + rng.uniform(0, 6)).astype(np.float32)
    u = abs(canvas.u - body.shift) / bulge[:, None, None]
    v = abs(canvas.v - middle) / bulge[:, None, None]
    # The back is flattened by the table, and bends in above the spine.
    furrow = rng.uniform(3, 12) * np.exp(-((canvas.u / 14) ** 2)) * (canvas.v > 0)

    def shell(width: float, half_depth: float) -> Field:
        radius = ((u / width) ** power + ((v + furrow) / half_depth) ** power) ** np.float32(1 / power)
        return (radius - 1) * np.float32(min(width, half_depth))

    skin = shell(body.half_width, depth)
    canvas.fat = float(rng.uniform(-118, -92))
    strands = abs(canvas.noise("strand", (9, 8, 8)))
    fat = canvas.fat + 7 * canvas.noise("fine", (6, 5, 5)) + rng.uniform(10, 70) * np.clip(1 - strands / 0.06, 0, 1)
    canvas.paint(Whole, canvas.cover(skin), rng.uniform(-30, 40))
    canvas.paint(Whole, canvas.cover(skin + rng.uniform(1.5, 2.5)), fat)

    thin_front = rng.uniform(0.55, 0.95)
    outer = shell(body.half_width - body.fat, depth - thin_front * body.fat)
    thickness = rng.uniform(9, 15)
    muscle = canvas.contrast["muscle"]
    # Rectus and the three flat muscles are thicker at the side, with fat between the sheets.
    side = np.clip(abs(canvas.u) / body.half_width, 0, 1)
    ring = thickness * (0.75 + 0.6 * side)
    sheets = np.clip(1 - abs(np.mod(outer / (0.33 * thickness) + 0.4 * canvas.noise("slow", (30, 26, 26)), 1) - 0.5) / 0.12, 0, 1)
    value = muscle + 5 * canvas.noise("fine", (6, 5, 5)) - rng.uniform(10, 90) * sheets * (side > 0.45)
    canvas.wall, canvas.inside = outer, outer + ring
    canvas.paint(Whole, canvas.cover(outer), value)
    canvas.paint(Whole, canvas.cover(canvas.inside), fat)


def paint_chest(canvas: Canvas) -> None:
    """Lungs above the diaphragm (a dome, deep at the back) and the heart between them."""
    rng = canvas.rng
    w, v, u = canvas.w, canvas.v, canvas.u
    top = rng.uniform(95, 135)
    # Liver side stands higher; lungs reach low behind and at the sides.
    height = top + 12 * (u < 0) - 0.011 * (np.where(v > -30, 1.25, 0.6) * (v + 30)) ** 2 - 0.006 * (u + 8) ** 2
    height = height + 5 * canvas.noise("slow", (30, 26, 26))
    lung = np.maximum(canvas.inside + 2, 0.6 * (height - w))
    lung = np.maximum(lung, 24 - np.sqrt((u - 4) ** 2 + (0.8 * (v + 8)) ** 2))
    vessels = np.clip(
        1 - np.sqrt(canvas.noise("vessel1", (16, 13, 13)) ** 2 + canvas.noise("vessel2", (16, 13, 13)) ** 2) / 0.16, 0, 1
    )
    air = rng.uniform(-900, -780) + 30 * canvas.noise("slow", (30, 26, 26)) + rng.uniform(500, 850) * vessels
    lung = np.maximum(lung, 2 - canvas.distance)
    canvas.paint(Whole, canvas.cover(lung), air)
    heart = canvas.ellipsoid(Whole, (top + 62, -62, 20), (48, 48, 58))
    heart = np.maximum(heart, canvas.inside + 3)
    canvas.paint(Whole, canvas.cover(heart - 5), canvas.fat)
    muscle = 0.5 * canvas.contrast["aorta"] + 45
    chamber = np.where(canvas.noise("slow", (30, 26, 26)) > -0.2, canvas.contrast["aorta"], muscle)
    canvas.paint(Whole, canvas.cover(heart), chamber)


def fibers(canvas: Canvas, fatty: float) -> Field:
    """Muscle HU with streaks of fat along the fibers; `fatty` 0 to 1."""
    grain = canvas.noise("fiber", (40, 4.5, 6))
    streak = np.clip((grain - (2.2 - 1.9 * fatty)) / 0.5, 0, 1)
    return canvas.contrast["muscle"] + 6 * canvas.noise("fine", (6, 5, 5)) + streak * (canvas.fat - 40) * 0.75


def paint_back_muscles(canvas: Canvas) -> None:
    """Erector spinae, multifidus, quadratus lumborum, psoas and the crura of the diaphragm on both sides."""
    rng, body = canvas.rng, canvas.body
    value = fibers(canvas, float(rng.beta(1.3, 2.5)))
    w, v, u = canvas.w, canvas.v, canvas.u
    size = rng.uniform(0.85, 1.15) * np.clip(body.half_width / 165, 0.85, 1.15)
    reach = body.back - 0.55 * body.fat - 7
    free = 0.3 + 2.5 * body.lean - canvas.distance
    half = float(np.clip((reach - 22) / 2, 14, 30))
    for side in (-1, 1):
        across = side * u
        erector = np.maximum(abs((v - (22 + half)) / half) ** 3 + abs((across - 33 * size) / (31 * size)) ** 3, 1e-6) ** (1 / 3)
        canvas.paint(Whole, canvas.cover(np.maximum((erector - 1) * half, free)), value)
        # A wedge between multifidus and longissimus shows as a line of fat.
        line = np.clip(1 - abs(across - 16 - 0.25 * (v - 20)) / 1.2, 0, 1) * (v > 25) * (v < reach - 4)
        canvas.paint(Whole, line * 0.6 * canvas.cover((erector - 1) * half), canvas.fat)
        quadratus = np.sqrt(((across - 62 * size) / (17 * size)) ** 2 + ((v - 24) / (8 * size)) ** 2) - 1
        quadratus = np.maximum(quadratus * 9, np.maximum(w - 35, -w - 95))
        canvas.paint(Whole, canvas.cover(np.maximum(quadratus, free)), value)
        drop = np.clip((25 - w) / 110, 0, 1.3)
        girth = (4 + 20 * drop) * size
        psoas = np.sqrt((across - 26 - 16 * drop) ** 2 + (0.85 * (v - 2 + 22 * np.clip(drop - 0.9, 0, 1))) ** 2) - girth
        canvas.paint(Whole, canvas.cover(np.maximum(np.maximum(psoas, w - 28), free)), value)
        crus = np.sqrt(((across - 11) / 6) ** 2 + ((v + 20) / 12) ** 2) - 1
        canvas.paint(Whole, canvas.cover(np.maximum(np.maximum(5 * crus, -w - 25), free)), value)


def paint_spine(canvas: Canvas) -> None:
    """Vertebral bodies with cortex and discs, canal, arches, transverse and spinous processes."""
    rng = canvas.rng
    where = canvas.around((0, 22, 0), (4000, 60, 60))
    if canvas.empty(where):
        return
    w, v, u = canvas.w[where], canvas.v[where], canvas.u[where]
    period, offset = rng.uniform(31, 38), rng.uniform(0, 35)
    level = abs(np.mod(w + offset, period) - period / 2)  # 0 in the middle of a vertebra
    disc = level > period / 2 - rng.uniform(3, 5.5)
    wide, deep = rng.uniform(20, 25), rng.uniform(14, 18)
    waist = 1 - 0.1 * np.cos(2 * np.pi * level / period)
    body = (np.sqrt((u / (wide * waist)) ** 2 + (v / (deep * waist)) ** 2) - 1) * deep
    marrow = rng.uniform(90, 240)
    cortex = rng.uniform(280, 700)
    spongy = marrow + 22 * canvas.noise("fine", (6, 5, 5))[where]
    end_plate = level > period / 2 - 7.5
    bone = np.where((body > -2.2) | end_plate, cortex, spongy)
    canvas.paint(where, canvas.cover(body), np.where(disc, rng.uniform(55, 110), bone))
    free = 1.0 - canvas.distance[where]
    arch = abs(np.sqrt(u**2 + (v - deep - 9) ** 2) - 12) - rng.uniform(2.5, 4)
    arch = np.where(level < 0.36 * period, arch, arch + 3)
    process = np.maximum(abs(u) - 3.0, np.maximum(v - deep - 46, deep + 18 - v)) + 6 * (level > 0.3 * period)
    transverse = np.maximum(abs(v - deep - 6) - 4, np.maximum(abs(u) - 38, level - 5))
    facet = np.sqrt((abs(u) - 17) ** 2 + (v - deep - 14) ** 2) - 6
    posterior = np.maximum(np.minimum(np.minimum(arch, process), np.minimum(transverse, facet)), free)
    canvas.paint(where, canvas.cover(posterior), np.where(posterior > -1.8, cortex, spongy + 60))
    canal = np.sqrt((u / 11) ** 2 + ((v - deep - 8.5) / 8) ** 2) - 1
    canvas.paint(where, canvas.cover(9 * canal), rng.uniform(10, 45))


def paint_ribs_and_pelvis(canvas: Canvas) -> None:
    """Oblique ribs in the wall above the kidneys' lower poles and iliac wings below them."""
    rng = canvas.rng
    w, v, u = canvas.w, canvas.v, canvas.u
    angle = np.arctan2(abs(u), v + 25)  # 0 at the back, pi in front
    spacing = rng.uniform(24, 30)
    slant = w + rng.uniform(60, 80) * np.sin(0.75 * angle) + rng.uniform(0, spacing)
    lowest = rng.uniform(-15, 20)
    place = np.mod(slant, spacing) - spacing / 2
    across = canvas.wall + rng.uniform(5, 8)
    rib = (np.sqrt((across / 4.2) ** 2 + (place / 6.2) ** 2) - 1) * 4.2
    limit = 1.0 + 1.5 * np.clip((slant - lowest) / 120, 0, 1)
    rib = np.maximum(rib, np.maximum(lowest + 20 - slant, 30 * (angle - limit)))
    rib = np.maximum(rib, 1 - canvas.distance)
    canvas.paint(Whole, canvas.cover(rib), np.where(rib > -1.5, rng.uniform(350, 800), rng.uniform(80, 220)))

    crest = -rng.uniform(85, 115)
    if float(canvas.lattice.z[0]) > crest:
        return
    down = np.clip((crest - w) / 90, 0, 1.4)
    wing = abs((abs(u) - (105 - 30 * down)) * 0.75 + (v - 12) * 0.66) - rng.uniform(4, 6)
    wing = np.maximum(wing, abs((abs(u) - 100 + 30 * down) * 0.66 - (v - 12) * 0.75) - 12 - 45 * down)
    wing = np.maximum(np.maximum(wing, w - crest), 2 - canvas.distance)
    canvas.paint(Whole, canvas.cover(wing - 14) * (down > 0), fibers(canvas, 0.3))
    canvas.paint(Whole, canvas.cover(wing), np.where(wing > -2, rng.uniform(350, 700), rng.uniform(80, 200)))


def paint_table(canvas: Canvas) -> None:
    """One or two thin curved sheets below the back."""
    rng, body = canvas.rng, canvas.body
    v, u = canvas.lattice.y[:, None], canvas.lattice.x[None, :] - body.shift
    top = body.back + rng.uniform(3, 18) - u**2 / rng.uniform(700, 2500)
    sheet = np.maximum(abs(v - top) - rng.uniform(0.5, 1.5), abs(u) - rng.uniform(190, 250))
    table = np.clip(0.5 - sheet / canvas.soft, 0, 1)
    flat = np.maximum(abs(v - body.back - rng.uniform(40, 70)) - 0.8, abs(u) - rng.uniform(90, 190))
    table = np.maximum(table, np.clip(0.5 - flat / canvas.soft, 0, 1)).astype(np.float32)
    outside = np.clip(-(canvas.hu + 900) / 60, 0, 1)
    canvas.hu += table * outside * (rng.uniform(-600, 250) + 1000)
