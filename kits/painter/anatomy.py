"""Everything around the kidneys, painted from the skin inwards on a coarse lattice."""

from __future__ import annotations

import numpy as np

from kits.painter import bones, bowel, decoys, frame, organs, trunk, variety
from kits.painter.canvas import FINE, SLOW, STRAND, Canvas
from kits.painter.fields import Field, Lattice
from kits.painter.frame import Body
from kits.painter.phases import Contrast


def paint_surroundings(
    rng: np.random.Generator, body: Body, contrast: Contrast, lattice: Lattice, distance: Field, *, amount: float, share: float
) -> Field:
    """Paint a body with no kidneys in it; the room of the kidneys themselves is filled with fat.

    Args:
        lattice: points in the volume (z, y, x) mm.
        distance: signed distance (mm) to the kidneys on the lattice, negative inside.
        amount: of variety, 0 to 1.
        share: of decoys, 0 to 1.

    Returns:
        HU, float32, of the lattice's shape.
    """
    canvas = Canvas.blank(rng, body, contrast, frame.shifted(lattice, body.origin), distance, amount)
    trunk.paint_skin_and_wall(canvas)
    organs.paint_mesentery(canvas)
    bowel.paint_bowel(canvas)
    organs.paint_stomach(canvas)
    organs.paint_spleen(canvas)
    organs.paint_pancreas(canvas)
    organs.paint_liver(canvas)
    organs.paint_masses(canvas)
    paint_perirenal_fat(canvas)
    variety.paint_contacts(canvas)
    decoys.paint_inner_decoys(canvas, share)
    trunk.paint_chest(canvas)
    trunk.paint_back_muscles(canvas)
    organs.paint_vessels(canvas)
    bones.paint_spine(canvas)
    bones.paint_ribs(canvas)
    bones.paint_pelvis(canvas)
    decoys.paint_outer_decoys(canvas, share)
    bones.paint_table(canvas)
    return canvas.hu


def paint_perirenal_fat(canvas: Canvas) -> None:
    """Paint fat with fascia and strands between kidney and neighbors, so thin in places that they touch."""
    rng, lean = canvas.rng, canvas.body.lean
    near = canvas.distance < 45
    if not near.any():
        return
    slow = canvas.noise(*SLOW)
    gap = variety.close_gaps(canvas, (0.5 + 13 * lean) + (2.5 + 6 * lean) * slow)
    fat = canvas.fat + 9 * canvas.noise(*FINE)
    strand = abs(canvas.noise(*STRAND))
    amount = rng.beta(1, 3)
    fat = fat + 110 * amount * np.clip(1 - strand / 0.12, 0, 1) * np.clip(1.2 - canvas.distance / 28, 0, 1)
    fascia = np.clip(1.2 - abs(canvas.distance - 0.92 * gap) / 1.1, 0, 1) * (slow > -0.2)
    fat = fat + rng.uniform(30, 110) * fascia
    coverage = np.where(near, canvas.cover(canvas.distance - gap), 0)
    canvas.hu += coverage * (fat - canvas.hu)
