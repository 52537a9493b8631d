"""Warnings to the reader of a segmentation, by its ROIs and its labels, one threshold each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kits.core.labels import KIDNEY
from kits.volume import Spacing
from kits.volume.hu import BODY_HU
from kits.volume.parts import CHILD_KIDNEY_ML, Part
from kits.volume.rois import Box, body_box

# The largest tight box of a kidney with its tumor in KiTS19's 210 label maps, (z, y, x) mm.
LARGEST_MM = (183.0, 180.0, 222.0)
# A box larger than that by so much, after its margin, is doubted.
TOLERANCE_MM = 40.0
# mL of a kidney without its tumors and cysts; adults have about 110 to 230, and some grow to twice that when the other is gone.
PLAUSIBLE_ML = (50.0, 450.0)
MANY_TUMORS = 4
# Medians of true kidneys without contrast agent: 14 and 27 HU in two real scans, 25 to 45 in 28 painted ones; with it 134 to 195
# in three real ones, 65 to 195 in 32 painted ones of every phase.
LEAST_ENHANCED_HU = 55.0
# HU of lung, and the share of a slice's middle from which on it is the chest.
LUNG_HU, LEAST_LUNG = (-980, -500), 0.2
# Below the lowest slice with so much lung lie 135 mm and more of four drawn CTs, of their pieces above the kidneys 76 mm at most.
LEAST_ABDOMEN_MM, LUNG_STEP_MM = 80.0, 8.0
FACES = (("first slice", "last slice"), ("front edge", "back edge"), ("right edge", "left edge"))  # of an array in LPS order


def doubt_boxes(boxes: Sequence[Box], spacing: Spacing, margin_mm: float) -> list[str]:
    """Doubt ROIs larger than any kidney: something else was taken along, or the spacing is wrong."""
    warnings = []
    for number, box in enumerate(boxes, start=1):
        size = [n * step for n, step in zip(box.shape, spacing, strict=True)]
        if any(side > most + 2 * margin_mm + TOLERANCE_MM for side, most in zip(size, LARGEST_MM, strict=True)):
            z, y, x = size
            warnings.append(
                f"ROI {number} is {z:.0f} x {y:.0f} x {x:.0f} mm, more than a kidney: size doubtful, look at it and its spacing"
            )
    return warnings


def doubt_borders(boxes: Sequence[tuple[Box, np.ndarray]], shape: tuple[int, ...]) -> list[str]:
    """Doubt results that reach a face of their ROI with more of the volume behind it.

    Args:
        boxes: each with bool (2, 3): whether the result reaches its first and its last layer along (z, y, x).
    """
    warnings = []
    for number, (box, reached) in enumerate(boxes, start=1):
        inner = np.array([np.array(box.start) > 0, np.array(box.stop) < shape])
        if (reached & inner).any():
            warnings.append(f"the result touches the border of ROI {number}: there may be more of it beyond")
    return warnings


def doubt_contrast(hu: np.ndarray, labels: np.ndarray) -> list[str]:
    """Doubt tumors where kidneys are no brighter than without contrast agent; both arrays (z, y, x)."""
    kidney = hu[labels == KIDNEY]
    if 2 * np.count_nonzero(kidney < LEAST_ENHANCED_HU) < max(1, kidney.size):
        return []  # the median is above, and sorting for it would take several times as long
    if (median := float(np.median(kidney))) >= LEAST_ENHANCED_HU:
        return []
    return [f"no contrast agent: the kidneys have {median:.0f} HU on the median, and a tumor hardly differs from them without it"]


def doubt_parts(parts: Sequence[Part], shape: tuple[int, ...]) -> list[str]:
    """Doubt a result without two kidneys, with one cut or of an odd volume, or with many tumors."""
    if not parts:
        return ["nothing found: no kidney and no tumor voxel in the result"]
    kidneys = [part for part in parts if part.kind == "kidney" and part.volume_ml >= CHILD_KIDNEY_ML]
    warnings, sides = [], {part.side for part in kidneys}
    if not kidneys:
        warnings.append(f"no kidney: no region of {CHILD_KIDNEY_ML:g} mL or more in the result")
    elif len(kidneys) == 1:
        warnings.append(f"one kidney: found on the {kidneys[0].side} only")
    elif len(sides) == 1 or len(kidneys) > 2:
        where = f"all found on the {kidneys[0].side}" if len(sides) == 1 else f"of {CHILD_KIDNEY_ML:g} mL or more each"
        warnings.append(f"{len(kidneys)} kidneys, {where}")
    low, high = PLAUSIBLE_ML
    if (
        kidneys and (tissue := sum(part.tissue_ml for part in kidneys)) < low
    ):  # hips and bowel are taken for kidneys full of tumor
        warnings.append(f"hardly any kidney: {tissue:.0f} mL in all without the tumors; is it a scan of the abdomen?")
    for part in kidneys:
        for axis, names in enumerate(FACES):
            at_face = (part.box.start[axis] == 0, part.box.stop[axis] == shape[axis])
            warnings += [
                f"field of view cuts the {part.side} kidney: it reaches the {name} of the volume"
                for name, cut in zip(names, at_face, strict=True)
                if cut
            ]
        if not low <= part.tissue_ml <= high:
            usual = f"{low:g} to {high:g} is usual"
            warnings.append(f"the {part.side} kidney has {part.tissue_ml:.0f} mL without its tumors ({usual})")
    tumors = sum(part.kind == "tumor" for part in parts)
    return [*warnings, *([f"{tumors} separate tumors"] if tumors >= MANY_TUMORS else [])]


def doubt_chest(array: np.ndarray, spacing: Spacing) -> list[str]:
    """Doubt a scan (z, y, x) of HU that ends below the lungs: kidneys lie lower.

    Of four drawn CTs and six phantoms that reach into the lungs it says so of all pieces above the kidneys, and of no other.
    """
    step = max(1, round(LUNG_STEP_MM / spacing[0]))
    for index in range(0, len(array), step):  # from below
        if (below := index * spacing[0]) >= LEAST_ABDOMEN_MM:
            break
        _, y, x = body_box(array[index : index + 1], BODY_HU).slices
        height, width = (y.stop - y.start) // 6, (x.stop - x.start) // 6  # gas about a patient lies nearer to the edge
        inner = array[index, y.start + height : y.stop - height : 4, x.start + width : x.stop - width : 4]
        if inner.size and ((inner > LUNG_HU[0]) & (inner < LUNG_HU[1])).mean() >= LEAST_LUNG:
            return [
                f"chest only: {below:.0f} mm of the scan lie below the lungs, and kidneys lie lower; give a scan of the abdomen"
            ]
    return []
