"""Separate a label map into the right and the left kidney, each with its own tumors and cysts.

Arrays are (z, y, x) and x runs to the patient's left, so the left kidney has the larger x whatever the file's axes were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from kits.core.labels import BACKGROUND, TUMOR
from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected, region_sizes_and_centers
from kits.volume.rois import body_box

RIGHT, LEFT = "right", "left"
SIDES = (RIGHT, LEFT)
# Ours. A piece of parenchyma from this on is a kidney (an atrophic one has 20 mL or more); smaller ones are crumbs.
LEAST_KIDNEY_ML = 3.0
# Ours: pieces of tumor below it (a ball of 6 mm) are specks, counted and not measured. KiTS19's smallest tumor has 0.8 mL.
LEAST_TUMOR_ML = 0.1
# A horseshoe: both halves hold this much, and the bridge's section is at most this share of either half's largest.
LEAST_HALF_ML, BRIDGE_SHARE = 20.0, 0.5
# Two kidneys that lie farther apart than this along x are on two sides, wherever the middle of the image is.
APART_MM = 80.0
# A lone kidney closer than this to the middle may be on either side.
DOUBTFUL_MM = 15.0
# The body is what is denser than this in the kidneys' slices; fat has -100 HU, air -1000.
BODY_HU = -300.0


@dataclass(frozen=True)
class KidneyRegion:
    """One kidney with its tumors and cysts.

    Attributes:
        side: `right` or `left`, the patient's.
        window: where it lies in the label map.
        labels: uint8 of that window, this kidney's voxels alone.
        tumors: the number of its tumor, from 1, at each voxel of the window; 0 elsewhere. Largest first.
        flags: warnings for the reader.
    """

    side: str
    window: tuple[slice, slice, slice]
    labels: np.ndarray
    tumors: np.ndarray
    flags: list[str] = field(default_factory=list)

    @property
    def tumor_count(self) -> int:
        """Count its tumors."""
        return int(self.tumors.max(initial=0))


@dataclass(frozen=True)
class Separated:
    """The kidneys of a label map, and the number and the volume of tumor pieces too small to measure."""

    kidneys: list[KidneyRegion]
    specks: int
    specks_ml: float


def separate(labels: np.ndarray, spacing: Spacing, hu: np.ndarray | None = None) -> Separated:
    """Separate a label map (z, y, x) into the kidneys of both sides.

    Args:
        spacing: (z, y, x) mm.
        hu: the CT on the same grid. With it the middle of the body parts right from left, without it that of the image.
    """
    window = bounding_slices(labels)
    if window is None:
        return Separated([], 0, 0.0)
    inside = np.ascontiguousarray(labels[window])
    voxel_ml = float(np.prod(spacing)) / 1000
    middle = (labels.shape[2] - 1) / 2
    if hu is not None:
        body = body_box(hu[window[0]], BODY_HU)
        middle = (body.start[2] + body.stop[2] - 1) / 2
    middle -= window[2].start
    foreground = connected(inside > BACKGROUND)
    pieces = connected((inside > BACKGROUND) & (inside != TUMOR))
    seeds = _seeds(pieces, voxel_ml, middle, APART_MM / spacing[2])
    owner, joined = _owners(inside, foreground, pieces, seeds, voxel_ml)
    tumors = connected(inside == TUMOR)
    sizes = np.bincount(tumors.ravel())
    small = sizes * voxel_ml < LEAST_TUMOR_ML
    small[0] = False
    if small.any():
        owner[small[tumors]] = 0
    specks, specks_ml = int(small.sum()), float(sizes[small].sum() * voxel_ml)
    kidneys = []
    for number, side in enumerate(SIDES, start=1):
        region = _region(inside, owner == number, side, labels.shape, window, voxel_ml)
        if region is not None:
            region.flags.extend(joined if number in seeds.sides else ())
            kidneys.append(region)
    if len(kidneys) == 1:
        kidneys[0].flags.append("single: no other kidney in the label map")
        if abs(seeds.mean_x(kidneys[0].side) - middle) * spacing[2] < DOUBTFUL_MM:
            kidneys[0].flags.append("side doubtful: it lies at the middle")
    return Separated(kidneys, specks, specks_ml)


@dataclass(frozen=True)
class _Seeds:
    """The pieces of parenchyma that are kidneys, by their number.

    Attributes:
        side: 1 right, 2 left.
        x: column of the piece's center.
        split: of a piece that holds both kidneys, the column that parts them.
        middle: column of the patient's middle.
    """

    side: dict[int, int]
    x: dict[int, float]
    split: dict[int, int]
    middle: float

    @property
    def sides(self) -> set[int]:
        return {*self.side.values()} | ({1, 2} if self.split else set())

    def mean_x(self, side: str) -> float:
        """Find the mean column of a side's kidneys; the middle where it has none."""
        columns = [self.x[piece] for piece, number in self.side.items() if SIDES[number - 1] == side]
        return float(np.mean(columns)) if columns else self.middle


def _seeds(pieces: np.ndarray, voxel_ml: float, middle: float, apart: float) -> _Seeds:
    """Find the pieces that are kidneys, and part them where two lie apart.

    That is farther than `apart` columns from each other.
    """
    sizes, centers = region_sizes_and_centers(pieces)
    large = [number for number in range(1, len(sizes)) if sizes[number] * voxel_ml >= LEAST_KIDNEY_ML]
    split = {number: column for number in large if (column := _bridge(pieces == number, voxel_ml, apart)) is not None}
    x = {number: float(centers[number][2]) for number in large if number not in split}
    ordered = sorted(x.values())
    gaps = [(b - a, (a + b) / 2) for a, b in pairwise(ordered)]
    if gaps and max(gaps)[0] >= apart:  # an image whose middle is not the patient's
        middle = max(gaps)[1]
    return _Seeds({number: 1 if column < middle else 2 for number, column in x.items()}, x, split, middle)


def _bridge(piece: np.ndarray, voxel_ml: float, apart: float) -> int | None:
    """Find the column where a horseshoe's bridge is thinnest; None where a piece is one kidney."""
    profile = piece.sum(axis=(0, 1)).astype(float)
    if profile.sum() * voxel_ml < 2 * LEAST_HALF_ML:
        return None
    before = np.cumsum(profile)
    enough = np.flatnonzero((before * voxel_ml >= LEAST_HALF_ML) & ((before[-1] - before) * voxel_ml >= LEAST_HALF_ML))
    if not len(enough):
        return None
    column = int(enough[np.argmin(profile[enough])])
    columns = np.arange(len(profile))
    centers = [np.average(columns[half], weights=profile[half]) for half in (slice(column), slice(column, None))]
    if centers[1] - centers[0] < apart:  # one kidney, whose middle a tumor has taken
        return None
    largest = min(profile[:column].max(initial=0), profile[column:].max(initial=0))
    return column if profile[column] <= BRIDGE_SHARE * largest else None


def _owners(
    inside: np.ndarray, foreground: np.ndarray, pieces: np.ndarray, seeds: _Seeds, voxel_ml: float
) -> tuple[np.ndarray, list[str]]:
    """Find the side (1 right, 2 left, 0 none) of every voxel, and flag what joins the two sides."""
    sizes, centers = region_sizes_and_centers(foreground)
    sides_in: dict[int, set[int]] = {number: set() for number in range(1, len(sizes))}
    for piece in (*seeds.side, *seeds.split):
        first = np.unravel_index(int(np.argmax(pieces == piece)), pieces.shape)
        sides_in[int(foreground[first])] |= {seeds.side[piece]} if piece in seeds.side else {1, 2}
    table = np.zeros(len(sizes), np.uint8)
    for number, sides in sides_in.items():
        by_middle = 1 if centers[number][2] < seeds.middle else 2
        if len(sides) == 1:
            table[number] = next(iter(sides))
        elif not sides and (by_middle in seeds.sides or sizes[number] * voxel_ml >= LEAST_KIDNEY_ML or not seeds.sides):
            table[number] = by_middle
        elif not sides:
            table[number] = next(iter(seeds.sides))
    owner = table[foreground]
    flags = []
    for number, sides in sides_in.items():
        if len(sides) == 2:
            part = foreground == number
            flags.append("joined: both kidneys are one region" + (", by parenchyma" if seeds.split else ", by a tumor"))
            _share_out(inside, part, pieces, seeds, owner)
    return owner, flags


def _share_out(inside: np.ndarray, part: np.ndarray, pieces: np.ndarray, seeds: _Seeds, owner: np.ndarray) -> None:
    """Divide a region that holds both kidneys in `owner`.

    Parenchyma by its piece, a tumor to the side that it touches more.
    """
    columns = np.arange(inside.shape[2])
    for piece, side in seeds.side.items():
        owner[part & (pieces == piece)] = side
    for piece, column in seeds.split.items():
        mask = part & (pieces == piece)
        owner[mask] = np.broadcast_to(np.where(columns < column, 1, 2), mask.shape)[mask]
    rest = connected(part & (owner == 0))
    for number in range(1, int(rest.max(initial=0)) + 1):
        mask = rest == number
        touched = [_contacts(mask, owner == side) for side in (1, 2)]
        if touched[0] == touched[1]:
            touched = [float((mask.any(axis=(0, 1)) & keep).sum()) for keep in (columns < seeds.middle, columns >= seeds.middle)]
        owner[mask] = 1 + int(np.argmax(touched))


def _contacts(one: np.ndarray, other: np.ndarray) -> float:
    """Count the faces that two masks share."""
    count = 0
    for axis in range(3):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        count += int((one[tuple(low)] & other[tuple(high)]).sum() + (other[tuple(low)] & one[tuple(high)]).sum())
    return float(count)


def _region(
    inside: np.ndarray,
    own: np.ndarray,
    side: str,
    shape: tuple[int, ...],
    window: tuple[slice, slice, slice],
    voxel_ml: float,
) -> KidneyRegion | None:
    """Cut one kidney out and number its tumors by size; None where the side has no voxel."""
    box = bounding_slices(own)
    if box is None:
        return None
    labels = np.where(own[box], inside[box], BACKGROUND).astype(np.uint8)
    found = connected(labels == TUMOR)
    sizes = np.bincount(found.ravel())[1:]
    numbers = np.zeros(len(sizes) + 1, np.uint16)
    numbers[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)
    place = tuple(slice(b.start + w.start, b.stop + w.start) for b, w in zip(box, window, strict=True))
    flags = []
    for axis, part in zip(("slice", "row", "column"), range(3), strict=True):
        if place[part].start == 0:
            flags.append(f"cut: it reaches the first {axis} of the image")
        if place[part].stop == shape[part]:
            flags.append(f"cut: it reaches the last {axis} of the image")
    if np.count_nonzero((labels > BACKGROUND) & (labels != TUMOR)) * voxel_ml < LEAST_KIDNEY_ML:
        flags.append("no parenchyma: what depends on the kidney's shape is not measurable")
    return KidneyRegion(side, (place[0], place[1], place[2]), labels, numbers[found], flags)
