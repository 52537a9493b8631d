"""Spine, ribs, pelvis, and the table below them."""

from __future__ import annotations

import numpy as np

from kits.painter.canvas import FINE, LUMPS, SLOW, WHOLE, Canvas


def paint_spine(canvas: Canvas) -> None:
    """Paint vertebral bodies with cortex, discs, canal, arches, transverse and spinous processes."""
    rng = canvas.rng
    where = canvas.around((0, 22, 0), (1e4, 60, 60))
    if canvas.empty(where):
        return
    w, v, u = canvas.w[where], canvas.v[where], canvas.u[where]
    fine, grain = canvas.noise(*FINE)[where], canvas.noise(*LUMPS)[where]
    period, offset = rng.uniform(31, 38), rng.uniform(0, 35)
    level = abs(np.mod(w + offset, period) - period / 2)  # 0 in the middle of a vertebra
    disc = level > period / 2 - rng.uniform(3, 5.5)
    wide, deep = rng.uniform(20, 25), rng.uniform(14, 18)
    waist = 1 - 0.1 * np.cos(2 * np.pi * level / period)
    body = (np.sqrt((u / (wide * waist)) ** 2 + (v / (deep * waist)) ** 2) - 1) * deep
    marrow, cortex = rng.uniform(80, 240), rng.uniform(260, 650)
    if canvas.happens(0.4):
        marrow, cortex = rng.uniform(40, 110), rng.uniform(170, 350)  # thinned by age: as bright as a kidney
    spongy = marrow + rng.uniform(10, 40) * grain + 10 * fine
    rim = np.clip(1 + (body + 1) / 1.5, 0, 1)
    plate = 0.5 * np.clip(1 - (period / 2 - 5.5 - level) / 2.5, 0, 1)
    bone = spongy + np.maximum(rim, plate) * (cortex - spongy)
    canvas.paint(where, canvas.cover(body), np.where(disc, rng.uniform(55, 110) + 5 * fine, bone))

    arch = abs(np.sqrt(u**2 + (v - deep - 9) ** 2) - 12) - rng.uniform(2.2, 3.8)
    arch = np.where(level < 0.36 * period, arch, arch + 3)
    process = np.maximum(abs(u) - 2.8, np.maximum(v - deep - 46, deep + 18 - v)) + np.float32(6) * (level > 0.3 * period)
    transverse = np.maximum(abs(v - deep - 6 + 0.1 * abs(u)) - 3.5, np.maximum(abs(u) - 38, level - 5))
    facet = np.sqrt((abs(u) - 17) ** 2 + (v - deep - 14) ** 2) - 6
    posterior = np.minimum(np.minimum(arch, process), np.minimum(transverse, facet))
    posterior = np.maximum(posterior, 1 - canvas.distance[where])
    canvas.paint(where, canvas.cover(posterior), np.where(posterior > -1.6, cortex, spongy + 60))
    canal = 9 * (np.sqrt((u / 11) ** 2 + ((v - deep - 8.5) / 8) ** 2) - 1)
    canvas.paint(where, canvas.cover(canal), rng.uniform(10, 45))


def paint_ribs(canvas: Canvas) -> None:
    """Paint oblique ribs in the wall, from a little above the kidneys' lower poles upwards."""
    rng = canvas.rng
    lowest = rng.uniform(-10, 30)
    where = canvas.lattice.box((1e3, 0.0, 0.0), (1e3 - lowest + 90, 1e4, 1e4))
    if canvas.empty(where):
        return
    w, v, u = canvas.w[where], canvas.v[where], canvas.u[where]
    angle = np.arctan2(abs(u), v + 25)  # 0 at the back, pi in front
    spacing = rng.uniform(25, 31)
    slant = w + rng.uniform(60, 80) * np.sin(0.75 * angle) + rng.uniform(0, spacing)
    place = np.mod(slant, spacing) - spacing / 2
    across = canvas.wall[where] + rng.uniform(4, 6)
    rib = (np.sqrt((across / rng.uniform(3, 4)) ** 2 + (place / rng.uniform(5, 6.5)) ** 2) - 1) * 3.5
    limit = 1.0 + 1.5 * np.clip((slant - lowest) / 120, 0, 1)
    rib = np.maximum(rib, np.maximum(lowest + 20 - slant, 30 * (angle - limit)))
    rib = np.maximum(rib, 1 - canvas.distance[where])
    canvas.paint(where, canvas.cover(rib), np.where(rib > -1.3, rng.uniform(300, 700), rng.uniform(80, 220)))


def paint_pelvis(canvas: Canvas) -> None:
    """Paint iliac wings well below the kidneys, gluteal and iliac muscle on them, hip heads further down."""
    rng = canvas.rng
    crest = -rng.uniform(85, 120)
    where = canvas.lattice.box((crest - 1e3, 0.0, 0.0), (1e3, 1e4, 1e4))
    if canvas.empty(where):
        return
    w, v, u = canvas.w[where], canvas.v[where], abs(canvas.u[where])
    down = np.clip((crest - w) / 90, 0, 1.3)
    # From the sacrum (behind, near the middle) outwards and forwards.
    along = (u - 40) * 0.72 - (v - 42) * 0.69
    sheet = (u - 40) * 0.69 + (v - 42) * 0.72 - 0.004 * (along - 35) ** 2
    reach = np.maximum(abs(along - 45) - (15 + 45 * np.minimum(down, 1)), w - crest)
    kept = np.maximum(canvas.wall[where] + 3, 2 - canvas.distance[where])
    flesh = canvas.contrast["muscle"] + 6 * canvas.noise(*FINE)[where] - 25 * (canvas.noise(*SLOW)[where] > 1.2)
    muscle = np.maximum(np.maximum(abs(sheet - 8) - 9 - 22 * down, reach - 6), kept - 2)
    canvas.paint(where, canvas.cover(muscle) * (down > 0), flesh)
    wing = np.maximum(np.maximum(abs(sheet) - rng.uniform(3.5, 6), reach), kept)
    bone, marrow = rng.uniform(300, 650), rng.uniform(80, 200)
    canvas.paint(where, canvas.cover(wing), np.where(wing > -1.6, bone, marrow))
    head = np.sqrt((w - crest + 135) ** 2 + (v + 8) ** 2 + (u - 88) ** 2) - 25
    canvas.paint(where, canvas.cover(head), np.where(head > -2, bone, marrow + 80))


def paint_table(canvas: Canvas) -> None:
    """Paint one or two thin curved sheets below the back."""
    rng, body = canvas.rng, canvas.body
    v, u = canvas.lattice.y[:, None], canvas.lattice.x[None, :] - body.shift
    top = body.back + rng.uniform(3, 18) - u**2 / rng.uniform(700, 2500)
    sheet = np.maximum(abs(v - top) - rng.uniform(0.5, 1.5), abs(u) - rng.uniform(190, 250))
    flat = np.maximum(abs(v - body.back - rng.uniform(40, 70)) - 0.8, abs(u) - rng.uniform(90, 190))
    table = np.maximum(canvas.cover(sheet), canvas.cover(flat))
    outside = np.clip(-(canvas.hu + 900) / 60, 0, 1)
    canvas.paint(WHOLE, table * outside, rng.uniform(-600, 250))
