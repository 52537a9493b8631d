"""Boxes from a mask: the paper's ROI rule, margins in mm, jitter, and what to take instead.

Boxes may overlap and are not merged (the paper gives each region its own ROI); what looks at them takes their union.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kits.volume import Spacing, Triple, bounding_slices
from kits.volume.components import connected, sizes
from kits.volume.hu import BODY_HU


@dataclass(frozen=True)
class Box:
    """A window of a volume in voxels (z, y, x); `stop` is exclusive."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        """Voxels along (z, y, x)."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return z1 - z0, y1 - y0, x1 - x0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of an array; only for a box inside it."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return slice(z0, z1), slice(y0, y1), slice(x0, x1)

    def grow_mm(self, margin_mm: float, spacing: Spacing, bounds: tuple[int, ...]) -> Box:
        """Grow the box by at least this margin on every face, in whole voxels, cut at `bounds`."""
        steps = [int(np.ceil(margin_mm / step - 1e-6)) for step in spacing]  # 3.0 / 0.3 must stay 10
        return Box.of((np.array(self.start) - steps).clip(0, bounds), (np.array(self.stop) + steps).clip(0, bounds))

    def to_list(self) -> list[list[int]]:
        """Return [[z, y, x], [z, y, x]] for JSON."""
        return [list(self.start), list(self.stop)]

    @classmethod
    def of(cls, start: Sequence[int] | np.ndarray, stop: Sequence[int] | np.ndarray) -> Box:
        """Make a box of three whole numbers each, also numpy's."""
        (z0, y0, x0), (z1, y1, x1) = map(int, start), map(int, stop)
        return cls((z0, y0, x0), (z1, y1, x1))

    @classmethod
    def from_list(cls, corners: Sequence[Sequence[int]]) -> Box:
        """Read what `to_list` gives."""
        return cls.of(*corners)


def find_rois(
    mask: np.ndarray,
    *,
    count: int,
    min_voxels: int,
    min_ml: float | None = None,
    spacing: Spacing | None = None,
    hu: np.ndarray | None = None,
) -> list[Box]:
    """Find the `count` largest, or by `hu` likeliest, regions over `min_voxels` (paper, section 4).

    Args:
        mask: bool (z, y, x) on the coarse grid; regions are 26-connected.
        min_ml: where given, replaces `min_voxels` (4000 voxels are 3 to 87 mL, depending on the spacing).
        spacing: (z, y, x) mm of the mask; needed with `min_ml` and `hu`.
        hu: the scan on the mask's grid, in LPS order.

    Returns:
        Tight boxes, the one of the largest region first; empty where no region is large enough.
    """
    if min_ml is not None:
        if spacing is None:
            raise ValueError("min_ml needs the spacing of the mask")
        min_voxels = int(np.floor(min_ml * 1000 / np.prod(spacing)))
    window = bounding_slices(mask)
    if window is None:
        return []
    # 26 neighbors: a kidney that a thin slice barely holds together at an edge or a corner is one region.
    regions = connected(mask[window])
    voxels = sizes(regions)
    most = count if hu is None else len(voxels)
    ordered = [region for region in np.argsort(-voxels, kind="stable")[:most] if voxels[region] > min_voxels]
    offset, windows = np.array([part.start for part in window]), ndimage.find_objects(regions)
    tight = [windows[region - 1] for region in ordered]
    boxes = [Box.of(offset + [part.start for part in one], offset + [part.stop for part in one]) for one in tight]
    if hu is not None and len(boxes) > count:
        if spacing is None:
            raise ValueError("likeness needs the spacing of the mask")
        ml = voxels[ordered] * float(np.prod(spacing)) / 1000
        judged = [likeness(box, size, hu, spacing) for box, size in zip(boxes, ml, strict=True)]
        boxes = [boxes[index] for index in likeliest(judged, count)]
    return boxes


def likeliest(regions: Sequence[tuple[float, tuple[float, float]]], count: int) -> tuple[int, ...]:
    """Choose the indices of `count` regions that are like kidneys and lie beside each other as they do.

    The upper ends of both kidneys differ by 40 mm at most in 38 of 39 of KiTS19's label maps, and by 104 in one. A psoas or a
    hip that the coarse mask takes for a kidney may have all its figures, but ends far below the other one; and both hips together
    lie far below all else that looks like kidneys.

    Args:
        regions: of each what `likeness` gives; more than `count`.
    """
    scores, places = zip(*regions, strict=True)
    top = max(height for height, _ in places)

    def together(chosen: tuple[int, ...]) -> float:
        score = float(np.prod([scores[index] for index in chosen]))
        score *= np.interp(top - max(places[index][0] for index in chosen), (100, 250), (1, 0.5))
        for one, other in itertools.combinations(chosen, 2):
            (low, left), (high, right) = places[one], places[other]
            score *= max(0.05, np.interp(abs(high - low), (60, 200), (1, 0)))
            score *= 0.3 if left * right > 0 else 1  # two on one side of the body
        return score

    most = sorted(range(len(scores)), key=lambda index: -scores[index])[: max(8, count)]  # or many specks are very many pairs
    return max(itertools.combinations(sorted(most), count), key=together)


def likeness(box: Box, ml: float, hu: np.ndarray, spacing: Spacing) -> tuple[float, tuple[float, float]]:
    """Score how like a kidney a region is, by volume, place and extent, and say where it lies.

    The kidneys of five drawn CTs, whole and cut, have 108 to 187 mL, are 50 to 92 mm wide, lie 58 to 78 mm beside the body's
    middle and 0.53 to 0.72 of its depth from the front; those of KiTS19's label maps are 183 mm high at most. The ranges leave
    room for tumors and for other bodies, and beyond them the score falls slowly: a kidney full of tumor is still likelier than
    liver and spleen.

    Args:
        box: of the region, on the grid of `hu` (z, y, x), which is in LPS order; ml: its volume.

    Returns:
        The score, 0 to 1, and where it lies in mm: its upper end in the scan, and its middle to the left of the body's.
    """
    slices = hu[box.start[0] : box.stop[0]]
    body = body_box(slices, BODY_HU)
    middle = np.array([*body.start, *body.stop]).reshape(2, 3).mean(axis=0)
    _, y, x = np.array([*box.start, *box.stop]).reshape(2, 3).mean(axis=0)
    beside = float(x - middle[2]) * spacing[2]
    cut = box.start[0] == 0 or box.stop[0] == len(hu)  # by the field of view, so that the rest of it may be small
    ml = max(ml, 40.0) if cut else ml
    judged = (
        (ml, (5, 40, 500, 1500)),
        (box.shape[0] * spacing[0], (-1, 0, 190, 600)),
        (max(box.shape[1] * spacing[1], box.shape[2] * spacing[2]), (10, 30, 130, 260)),
        (abs(beside), (10, 40, 95, 130)),
        ((y - body.start[1]) / body.shape[1], (0.3, 0.5, 0.8, 0.95)),
    )
    # No single figure rules a region out; of two that are alike the larger is likelier.
    score = float(np.prod([max(0.05, np.interp(value, corners, (0, 1, 1, 0))) for value, corners in judged]))
    score *= float(np.interp(ml, (20, 120), (0.6, 1)))
    return score, (box.stop[0] * spacing[0], beside)


def jitter(box: Box, rng: np.random.Generator, max_mm: float, spacing: Spacing, bounds: tuple[int, ...]) -> Box:
    """Move each face of the box on its own by up to `max_mm` in or out, cut at `bounds`; never empty.

    Training on such boxes prepares the fine stage for those of a coarse network, which are not tight.
    """
    faces = np.array([box.start, box.stop], dtype=np.float64)
    # Each face by itself and in mm: along z a voxel may be ten times as long as in-plane.
    moved = np.rint(faces + rng.uniform(-max_mm, max_mm, size=(2, 3)) / np.array(spacing)).astype(int)
    start = moved[0].clip(0, np.array(bounds) - 1)
    stop = moved[1].clip(0, bounds)
    crossed = stop <= start
    middle = (np.array(box.start) + np.array(box.stop)) // 2
    start = np.where(crossed, middle.clip(0, np.array(bounds) - 1), start)
    return Box.of(start, np.where(crossed, start + 1, stop))


def body_box(volume: np.ndarray, threshold_hu: float) -> Box:
    """Find the box of the body, the largest 6-connected region above `threshold_hu`; else of all.

    Args:
        volume: (z, y, x) HU. Every fourth row and column is looked at, and the box is widened to match.
    """
    step = 4
    # 6 neighbors: the body touches the table in a few voxels, often by their edges alone, and would take it along.
    body = connected(volume[:, ::step, ::step] > threshold_hu, connectivity=6)
    voxels = np.bincount(body.ravel())
    voxels[0] = 0
    window = bounding_slices(body == voxels.argmax()) if voxels.any() else None
    if window is None:
        return Box.of((0, 0, 0), volume.shape)
    z, y, x = window
    low = (z.start, (y.start - 1) * step + 1, (x.start - 1) * step + 1)
    return Box.of(np.maximum(low, 0), np.minimum((z.stop, y.stop * step, x.stop * step), volume.shape))


def coverage(boxes: Sequence[Box], mask: np.ndarray) -> float:
    """Compute the share of a mask's voxels (z, y, x) in at least one box; 1.0 for an empty mask."""
    window = bounding_slices(mask)
    if window is None:
        return 1.0
    left = mask[window] != 0
    total = int(left.sum())
    offset = [part.start for part in window]
    for box in boxes:
        inside = tuple(
            slice(max(low - start, 0), max(high - start, 0)) for low, high, start in zip(box.start, box.stop, offset, strict=True)
        )
        left[inside] = False
    return 1.0 - int(left.sum()) / total
