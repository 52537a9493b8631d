"""The frame of a kidney: its filled outline, the way to its sinus, its length, and distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.core.labels import TUMOR
from kits.readout.cubes import Cubes, distance_to
from kits.readout.kidneys import LEFT
from kits.readout.outline import LEAST_SEEN, Outline
from kits.readout.sinus import Sinus


@dataclass(frozen=True)
class KidneyFrame:
    """A kidney's own frame on its cubes (z, y, x).

    Attributes:
        outline: None where there is no parenchyma to have one.
        depth: mm from each cube to the nearest outside of the outline; 0 there.
        sinus_distance: mm from each cube to the sinus; infinite where none was found.
        medial: unit vector (y, x) from the kidney's center to its sinus; toward the spine where none was found.
        length_mm: from pole to pole; that of one cube without an outline.
        flags: warnings about what could not be found.
    """

    outline: Outline | None
    sinus: Sinus
    depth: np.ndarray
    sinus_distance: np.ndarray
    medial: np.ndarray
    length_mm: float
    flags: list[str]

    @classmethod
    def of(cls, cubes: Cubes, sinus: Sinus, outline: Outline | None, side: str) -> KidneyFrame:
        """Find the frame; the sinus and the tumor inside the outline belong to the kidney."""
        cube = (cubes.step,) * 3
        solid = cubes.kidney | sinus.gap
        medial = np.array([0.0, -1.0 if side == LEFT else 1.0])
        length = 0.0
        flags = []
        if outline is not None:
            points = np.argwhere(cubes.labels == TUMOR)
            inside = points[outline.contains(points.astype(float))] if len(points) else points
            solid[tuple(inside.T)] = True
            if outline.seen < LEAST_SEEN:
                flags.append(f"outline doubtful: tumors cover {100 * (1 - outline.seen):.0f} % of the kidney's surface")
            if sinus.mask.any():
                toward = np.argwhere(sinus.mask).mean(axis=0)[1:] - outline.center[1:]
                medial = toward / max(float(np.linalg.norm(toward)), 1e-6)
            else:
                flags.append("no sinus found: what is measured from it is missing")
            axis = outline.axes[:, 0] / np.linalg.norm(outline.axes[:, 0])
            length = float(np.ptp(np.argwhere(solid) @ axis))
        distances = distance_to(~solid, cube), distance_to(sinus.mask, cube)
        return cls(outline, sinus, *distances, medial, (length + 1) * cubes.step, flags)
