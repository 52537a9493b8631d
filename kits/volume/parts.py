"""Kidneys and tumors one by one: on which side of the patient each lies, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from kits.core.labels import BACKGROUND, KIDNEY, TUMOR
from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected
from kits.volume.hu import BODY_HU
from kits.volume.rois import Box
from kits.volume.windows import Window

LEFT, RIGHT = "left", "right"
# Of a region of foreground that counts as a kidney: a child's has that much.
CHILD_KIDNEY_ML = 20.0


@dataclass(frozen=True)
class Part:
    """One connected region (26 neighbors) of a label map.

    Attributes:
        kind: `kidney`, with its tumors and cysts, or `tumor`.
        side: the patient's left or right.
        tissue_ml: of a kidney what is neither tumor nor cyst; of a tumor 0.
        center: (z, y, x) voxels.
        box: the smallest that holds it.
    """

    kind: str
    side: str
    volume_ml: float
    center: tuple[float, float, float]
    box: Box
    tissue_ml: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rounded = {key: round(getattr(self, key), 2) for key in ("volume_ml", "tissue_ml")}
        center = [round(place, 1) for place in self.center]
        return {**asdict(self), **rounded, "center": center, "box": self.box.to_list()}


def parts_of(labels: np.ndarray, spacing: Spacing, middle: float, within: Window | None = None) -> list[Part]:
    """List kidneys, the largest first, then tumors likewise.

    Two kidneys are left and right of one another, wherever the patient lies in the picture; any other number is judged by the
    patient's middle. A tumor has the side of the kidney that it is connected to.

    Args:
        labels: uint8 (z, y, x) in LPS order: x grows to the patient's left.
        middle: the patient's middle, in voxels of x (`middle_of`).
        within: as of `bounding_slices`.
    """
    window = bounding_slices(labels, within)
    if window is None:
        return []
    inside, offset = labels[window], tuple(part.start for part in window)
    voxel_ml = float(np.prod(spacing)) / 1000
    kidneys, numbered = regions(inside != BACKGROUND, offset)
    large = [center for center, box, voxels in kidneys if voxels * voxel_ml >= CHILD_KIDNEY_ML]
    if len(large) == 2:
        middle = (large[0][2] + large[1][2]) / 2
    sides = [LEFT if center[2] > middle else RIGHT for center, _, _ in kidneys]
    masses = np.bincount(numbered[inside > KIDNEY], minlength=len(kidneys) + 1)[1:]  # its tumors and cysts
    found = [
        Part("kidney", side, voxels * voxel_ml, center, box, float(voxels - mass) * voxel_ml)
        for side, (center, box, voxels), mass in zip(sides, kidneys, masses, strict=True)
    ]
    tumors, of_tumors = regions(inside == TUMOR, offset)
    for number, (center, box, voxels) in enumerate(tumors, start=1):
        start = np.subtract(box.start, offset)
        own = tuple(slice(a, a + n) for a, n in zip(start, box.shape, strict=True))
        kidney = int(numbered[own][of_tumors[own] == number][0])
        found.append(Part("tumor", sides[kidney - 1], voxels * voxel_ml, center, box))
    return sorted(found, key=lambda part: (part.kind != "kidney", -part.volume_ml))


def regions(mask: np.ndarray, offset: Sequence[int]) -> tuple[list[tuple[tuple[float, float, float], Box, int]], np.ndarray]:
    """Measure center, box and voxels of every region of a mask at `offset`; regions count from 1."""
    numbered, result = connected(mask), []
    for number, window in enumerate(ndimage.find_objects(numbered), start=1):
        start = offset + np.array([part.start for part in window])
        stop = offset + np.array([part.stop for part in window])
        inside = (numbered[window] == number).view(np.uint8)
        rows, columns = inside.sum(axis=2, dtype=np.uint32), inside.sum(axis=1, dtype=np.uint32)
        z, y, x = (
            float(np.average(np.arange(low, high), weights=voxels))
            for low, high, voxels in zip(start, stop, (rows.sum(axis=1), rows.sum(axis=0), columns.sum(axis=0)), strict=True)
        )
        result.append(((z, y, x), Box.of(start, stop), int(rows.sum())))
    return result, numbered


def middle_of(array: np.ndarray, slices: slice) -> float:
    """Find the patient's middle along x, in voxels, by the body in some slices; a table hardly moves it.

    Args:
        array: (z, y, x) HU; every fourth row and column is looked at.
    """
    step = max(1, (slices.stop - slices.start) // 8)
    body = array[slices.start : slices.stop : step, ::4, ::4] > BODY_HU
    columns = body.sum(axis=(0, 1))
    return 4 * float(np.average(np.arange(len(columns)), weights=columns)) if columns.any() else array.shape[2] / 2
