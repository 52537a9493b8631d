"""What the reader of a segmentation should be warned of: what the scan, the ROIs and the labels show by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kits.inference.fine import BoxReading
from kits.inference.parts import LEAST_KIDNEY_ML, Part
from kits.volume import Spacing
from kits.volume.rois import Box

# The largest tight box of a kidney with its tumor in KiTS19's 210 label maps, (z, y, x) mm.
LARGEST_MM = (183.0, 180.0, 222.0)
# A box larger than that by so much, after its margin, is doubted.
TOLERANCE_MM = 40.0
FACES = (("first slice", "last slice"), ("front edge", "back edge"), ("right edge", "left edge"))  # of an array in LPS order


def of_boxes(boxes: Sequence[Box], spacing: Spacing, margin_mm: float) -> list[str]:
    """ROIs larger than any kidney: the coarse stage has taken something else along, or the spacing is wrong."""
    warnings = []
    for number, box in enumerate(boxes, start=1):
        size = [n * step for n, step in zip(box.shape, spacing, strict=True)]
        if any(side > most + 2 * margin_mm + TOLERANCE_MM for side, most in zip(size, LARGEST_MM, strict=True)):
            z, y, x = size
            warnings.append(
                f"ROI {number} is {z:.0f} x {y:.0f} x {x:.0f} mm, more than a kidney: size doubtful, look at it and its spacing"
            )
    return warnings


def of_readings(readings: Sequence[BoxReading], shape: tuple[int, ...]) -> list[str]:
    """Results that reach a face of their ROI with more of the volume behind it."""
    warnings = []
    for number, reading in enumerate(readings, start=1):
        inner = np.array([np.array(reading.box.start) > 0, np.array(reading.box.stop) < shape])
        if (reading.touched & inner).any():
            warnings.append(f"the result touches the border of ROI {number}: there may be more of it beyond")
    return warnings


def of_parts(parts: Sequence[Part], shape: tuple[int, ...]) -> list[str]:
    """Nothing found, one kidney only, or a kidney that the field of view cuts."""
    kidneys = [part for part in parts if part.kind == "kidney" and part.volume_ml >= LEAST_KIDNEY_ML]
    if not parts:
        return ["nothing found: no kidney and no tumor voxel in the result"]
    warnings = []
    sides = {part.side for part in kidneys}
    if not kidneys:
        warnings.append(f"no kidney: no region of {LEAST_KIDNEY_ML:g} mL or more in the result")
    elif len(kidneys) == 1:
        warnings.append(f"one kidney: found on the {kidneys[0].side} only")
    elif len(sides) == 1:
        warnings.append(f"{len(kidneys)} kidneys, all found on the {kidneys[0].side}")
    for part in kidneys:
        for axis, names in enumerate(FACES):
            at_face = (part.box.start[axis] == 0, part.box.stop[axis] == shape[axis])
            warnings += [
                f"field of view cuts the {part.side} kidney: it reaches the {name} of the volume"
                for name, cut in zip(names, at_face, strict=True)
                if cut
            ]
    return warnings
