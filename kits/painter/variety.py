"""Variety that makes a painted case hard for a threshold: neighbors of the kidney's own HU touch it.

Kidneys are uneven too. Where `variety` is 0 no random number is drawn: such cases keep their bytes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kits.painter.bowel import paint_loop
from kits.painter.canvas import FINE, LUMPS, Canvas
from kits.painter.fields import Field, Lattice, Triple, smooth_noise
from kits.painter.frame import Kidney
from kits.painter.organs import organ_texture
from kits.painter.phases import Contrast

# Highest HU that a neighbor is raised to: parenchyma takes up less than the kidney does.
HIGHEST = {"liver": 150.0, "spleen": 190.0, "pancreas": 140.0, "bowel_wall": 140.0, "portal_vein": 230.0}
TOUCH: tuple[str, Triple] = ("touch", (34, 28, 28))


def vary_contrast(rng: np.random.Generator, contrast: Contrast, variety: float) -> Contrast:
    """Give kidneys and neighbors the same HU: the former take up little, or the latter much.

    Little by poor function, or an early or late scan. Without contrast everything is alike already.
    """
    if variety == 0 or contrast.phase == "none":
        return contrast
    hu = dict(contrast.hu)
    draw = rng.random()
    if draw < 0.3 * variety:
        model = hu[str(rng.choice(["liver", "spleen", "pancreas"]))]
        hu["cortex"] = max(model + float(rng.uniform(-10, 25)), 55.0)
        dark = float(rng.uniform(5, 45)) if contrast.phase == "corticomedullary" else float(rng.normal(0, 8))
        hu["medulla"] = max(hu["cortex"] - dark, 40.0)
        hu["renal_vein"] = min(hu["renal_vein"], hu["cortex"] + 30)
    elif draw < 0.7 * variety:
        kidney = 0.6 * hu["cortex"] + 0.4 * hu["medulla"]
        for tissue, highest in HIGHEST.items():
            share = float(rng.uniform(0.3, 1))
            hu[tissue] += share * (min(kidney, highest) - hu[tissue])
    return replace(contrast, hu=hu)


def vary_kidney(rng: np.random.Generator, kidney: Field, lattice: Lattice, variety: float) -> Field:
    """Make one kidney brighter, let its HU drift, and now and then perfuse a part badly."""
    if variety == 0:
        return kidney
    slow = smooth_noise(rng, lattice, (32, 24, 24))
    gain = 1 + variety * (rng.normal(0, 0.1) + rng.uniform(0, 0.08) * slow)
    if rng.random() < 0.2 * variety:
        gain = gain * (1 - rng.uniform(0.2, 0.6) * np.clip((slow - rng.uniform(0.6, 1.4)) / 0.25, 0, 1))
    return (kidney * gain).astype(np.float32)


def close_gaps(canvas: Canvas, gap: Field) -> Field:
    """Compute the thickness (mm) of the perirenal fat with holes, where neighbors touch the kidney."""
    if not canvas.happens(0.8):
        return gap
    hole = np.clip((canvas.noise(*TOUCH) - canvas.rng.uniform(-0.3, 0.9)) / 0.4, 0, 1)
    return gap - hole * (gap + 3)


def paint_contacts(canvas: Canvas) -> None:
    """Paint organs, bowel, masses and fluid on the perirenal fat, against kidneys, under muscle and bone."""
    if canvas.variety == 0:
        return
    for kidney in canvas.body.kidneys:
        if canvas.happens(0.7):
            paint_organ(canvas, kidney)
        for _ in range(int(canvas.rng.poisson(1.0 * canvas.variety))):
            paint_bowel_beside(canvas, kidney)
        for _ in range(int(canvas.rng.poisson(1.1 * canvas.variety))):
            paint_mass(canvas, kidney)
    if canvas.happens(0.15):
        paint_fluid(canvas)


def beside(canvas: Canvas, kidney: Kidney, away_mm: float, *, front: bool = False, lateral: bool = False) -> Triple | None:
    """Draw a place (w, v, u; warped) inside the wall, `away_mm` off a kidney's surface, if there is any.

    Args:
        front, lateral: only in front of the kidney's middle, only on its outer half.
    """
    reach = tuple((high - low) / 2 + away_mm + 4 for low, high in zip(kidney.low, kidney.high, strict=True))
    middle = tuple((high + low) / 2 for low, high in zip(kidney.low, kidney.high, strict=True))
    where = canvas.lattice.box((middle[0], middle[1], middle[2]), (reach[0], reach[1], reach[2]))
    if canvas.empty(where):
        return None
    fits = (abs(canvas.distance[where] - away_mm) < 1.5) & (canvas.inside[where] < -4)
    _, v, u = canvas.lattice.part(where).points
    if front:
        fits = fits & (v < kidney.center[1])
    if lateral:
        fits = fits & ((kidney.side or 1) * (u - kidney.center[2]) > 0)
    places = np.flatnonzero(fits)
    if not len(places):
        return None
    index = np.unravel_index(int(canvas.rng.choice(places)), fits.shape)
    return float(canvas.w[where][index]), float(canvas.v[where][index]), float(canvas.u[where][index])


def paint_organ(canvas: Canvas, kidney: Kidney) -> None:
    """Paint liver on the right, spleen or pancreas' tail on the left, broadly against the kidney."""
    rng, contrast = canvas.rng, canvas.contrast
    size = float(rng.uniform(24, 42))
    place = beside(canvas, kidney, 0.75 * size, front=True, lateral=True)
    if place is None:
        return
    organ = "liver" if kidney.side < 0 else str(rng.choice(["spleen", "spleen", "pancreas"]))
    radii = (size * rng.uniform(1.0, 1.6), size, size * rng.uniform(0.8, 1.1))
    radii = (0.6 * radii[0], 0.5 * radii[1], radii[2]) if organ == "pancreas" else radii
    where = canvas.around(place, radii)
    shape = np.maximum(canvas.ellipsoid(where, place, radii), canvas.inside[where] + 2)
    canvas.paint(where, canvas.cover(shape), organ_texture(canvas, where, contrast[organ], contrast["portal_vein"]))


def paint_bowel_beside(canvas: Canvas, kidney: Kidney) -> None:
    """Paint a loop of bowel of any content along the kidney."""
    rng = canvas.rng
    radius = float(rng.uniform(8, 20))
    place = beside(canvas, kidney, 0.7 * radius, front=True)
    if place is None:
        return
    step = rng.normal(0, 14, 3)
    points = [tuple(float(c + t * s) for c, s in zip(place, step, strict=True)) for t in (-1, 0, 1)]
    kind = rng.choice(["tissue", "fluid", "contrast", "gas", "feces"], p=[0.4, 0.15, 0.2, 0.1, 0.15])
    paint_loop(canvas, points, radius, str(kind), haustra=0.2)  # type: ignore[arg-type]


def paint_mass(canvas: Canvas, kidney: Kidney) -> None:
    """Paint a mass that is not renal but has the HU of kidney or tumor, often dead inside."""
    rng, contrast = canvas.rng, canvas.contrast
    size = float(np.clip(np.exp(rng.normal(np.log(12), 0.5)), 5, 38))
    place = beside(canvas, kidney, rng.uniform(0.4, 0.85) * size)
    if place is None:
        return
    enhanced = contrast.phase != "none"
    kind = rng.choice(["tumor", "soft", "kidney", "water"], p=[0.4, 0.25, 0.2, 0.15])
    hu = {
        "tumor": rng.uniform(0.4, 0.95) * contrast["cortex"] if enhanced else rng.uniform(22, 48),
        "soft": rng.uniform(35, 100) if enhanced else rng.uniform(20, 50),
        "kidney": 0.5 * (contrast["cortex"] + contrast["medulla"]) + rng.normal(0, 10),
        "water": rng.uniform(-5, 25),
    }[str(kind)]
    radii = (size * rng.uniform(0.8, 1.5), size * rng.uniform(0.8, 1.1), size * rng.uniform(0.8, 1.1))
    rough = float(rng.uniform(2, 25)) if enhanced and kind != "water" else 3.0
    where = canvas.around(place, radii)
    lumps = canvas.noise(*LUMPS)[where]
    shape = canvas.ellipsoid(where, place, radii) + 0.08 * size * canvas.noise(*FINE)[where]
    value = hu + rough * lumps
    if kind == "tumor" and rng.random() < 0.5:
        dead = np.clip((-shape / size + 0.25 * lumps - rng.uniform(0.3, 0.7)) / 0.15, 0, 1)
        value = value + dead * (rng.uniform(8, 40) - value)
    canvas.paint(where, canvas.cover(np.maximum(shape, canvas.inside[where] + 2)), value)


def paint_fluid(canvas: Canvas) -> None:
    """Paint a crescent of fluid or blood on part of the kidney's surface."""
    rng = canvas.rng
    shape = np.maximum(canvas.distance - rng.uniform(3, 11), 8 * (rng.uniform(0.2, 1) - canvas.noise(*TOUCH)))
    canvas.hu += canvas.cover(np.maximum(shape, canvas.inside + 2)) * (rng.uniform(5, 65) - canvas.hu)
