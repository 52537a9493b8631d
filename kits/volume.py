"""CT volumes in one orientation, the coarse in-plane grid, and the exact ways back.

Everything inside the project works on arrays (slice, row, column) = (z, y, x) whose axes run Superior, Posterior and Left (LPS).
Orientation is a permuted and flipped view of the reader's buffer, so a 278-million-voxel scan is never copied for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]

# Slices that are converted to float32 at a time: a few tens of MB at 512 x 512, and 32 of int16 are one cache line
# where the slice axis is the fastest in memory, as in KiTS19's own files.
_SLAB = 32


@dataclass(frozen=True)
class Grid:
    """Geometry of an image as its file has it: SimpleITK's own (x, y, z) order, mm, direction as nine cosines row by row."""

    size: Triple
    spacing: Spacing
    origin: Spacing
    direction: tuple[float, ...]

    @cached_property
    def _physical_to_index(self) -> Triple:
        """For physical x, y, z (LPS): the index axis that runs closest to it.

        Greedy by the largest cosine, and of equal cosines the last, as ITK decides for oblique images.
        """
        cosines = np.abs(np.reshape(self.direction, (3, 3)))
        found = [0, 0, 0]
        for _ in range(3):
            physical, index = divmod(8 - int(np.argmax(cosines.ravel()[::-1])), 3)
            found[physical] = index
            cosines[physical, :] = -1
            cosines[:, index] = -1
        return found[0], found[1], found[2]

    @property
    def axes(self) -> Triple:
        """Permutation that takes SimpleITK's array (k, j, i) to (slice, row, column)."""
        x, y, z = self._physical_to_index
        return 2 - z, 2 - y, 2 - x

    @property
    def flips(self) -> tuple[bool, bool, bool]:
        """Which of (slice, row, column), after the permutation, run against Superior, Posterior, Left."""
        x, y, z = self._physical_to_index
        cosines = np.reshape(self.direction, (3, 3))
        return bool(cosines[2, z] < 0), bool(cosines[1, y] < 0), bool(cosines[0, x] < 0)

    @property
    def spacing_zyx(self) -> Spacing:
        """Voxel spacing in mm along (slice, row, column)."""
        x, y, z = self._physical_to_index
        return self.spacing[z], self.spacing[y], self.spacing[x]

    @property
    def shape_zyx(self) -> Triple:
        """Voxels along (slice, row, column)."""
        x, y, z = self._physical_to_index
        return self.size[z], self.size[y], self.size[x]


@dataclass(frozen=True)
class Volume:
    """A scan or a label map in LPS order.

    Attributes:
        array: (z, y, x); a view of SimpleITK's buffer (then read-only) or any array of that order.
        spacing: (z, y, x) mm.
        grid: the geometry of the file that it came from.
    """

    array: np.ndarray
    spacing: Spacing
    grid: Grid


class _Buffer:
    """Lends an image's memory to numpy and keeps the image alive as long as any view of it: SimpleITK's own view does not."""

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        self.__array_interface__: dict[str, Any] = sitk.GetArrayViewFromImage(image).__array_interface__


def grid_of(image: sitk.Image) -> Grid:
    """The geometry of a 3D image."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def from_image(image: sitk.Image) -> Volume:
    """A 3D scalar image as a Volume whose array is a read-only view of the image's memory."""
    grid = grid_of(image)
    array = _flip(np.asarray(_Buffer(image)).transpose(grid.axes), grid.flips)
    return Volume(array, grid.spacing_zyx, grid)


def to_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """An array (z, y, x) in LPS order as an image of exactly this size, spacing, origin and direction.

    Raises:
        ValueError: the array's shape is not the grid's.
    """
    if array.shape != grid.shape_zyx:
        raise ValueError(f"array {array.shape} does not fit the grid {grid.shape_zyx}")
    back = _flip(array, grid.flips).transpose(np.argsort(grid.axes))
    image = sitk.GetImageFromArray(np.ascontiguousarray(back))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def _flip(array: np.ndarray, flips: tuple[bool, bool, bool]) -> np.ndarray:
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


# --- crops -----------------------------------------------------------------------------------------------------------


def crop(array: np.ndarray, start: Triple, shape: Triple, pad_value: float) -> np.ndarray:
    """A contiguous copy of the window at `start` (z, y, x; may be negative); what lies outside the array gets `pad_value`."""
    window = np.full(shape, pad_value, dtype=array.dtype)
    inside, source = _overlap(array.shape, start, shape)
    window[inside] = array[source]
    return window


def paste(target: np.ndarray, patch: np.ndarray, start: Triple) -> None:
    """Write `patch` into `target` (z, y, x) at `start`, the way back from `crop`; what falls outside is dropped."""
    inside, source = _overlap(target.shape, start, patch.shape)
    target[source] = patch[inside]


def _overlap(bounds: tuple[int, ...], start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
    """The part of a window that lies in an array, in the window's and in the array's own indices; may be empty."""
    low = [min(max(s, 0), b) for s, b in zip(start, bounds, strict=True)]
    high = [max(min(s + n, b), lo) for s, n, b, lo in zip(start, shape, bounds, low, strict=True)]
    source = tuple(slice(lo, hi) for lo, hi in zip(low, high, strict=True))
    empty = any(lo == hi for lo, hi in zip(low, high, strict=True))
    inside = tuple(slice(0, 0) if empty else slice(lo - s, hi - s) for lo, hi, s in zip(low, high, start, strict=True))
    return inside, tuple(slice(0, 0) for _ in source) if empty else source


def bounding_slices(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest window (z, y, x) that holds every non-zero voxel; None where there is none."""
    window = [slice(None)] * 3
    for axis in range(3):  # each pass looks only at what the one before left
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask[tuple(window)].any(axis=others))
        if not len(found):
            return None
        window[axis] = slice(int(found[0]), int(found[-1]) + 1)
    return window[0], window[1], window[2]


# --- the coarse grid -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoarseGrid:
    """In-plane grid of the coarse stage: `size` x `size`, slices untouched (paper, section 3).

    Rows and columns shrink (or grow) by one common factor, so that a slice of 512 x 796 is not squashed; the shorter side is
    centered and padded. Along each axis the `native` voxels and the `inner` coarse ones span exactly the same millimeters.

    Attributes:
        native: (z, y, x) voxels of the volume.
        size: side of the square coarse slice.
        inner: (y, x) coarse pixels that hold image, the rest is padding.
        offset: (y, x) coarse pixels of padding before them.
    """

    native: Triple
    size: int
    inner: tuple[int, int]
    offset: tuple[int, int]

    @property
    def shape(self) -> Triple:
        """(z, y, x) of a coarse array."""
        return self.native[0], self.size, self.size

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """Slices of a coarse array that leave its padding out."""
        (rows, columns), (top, left) = self.inner, self.offset
        return slice(None), slice(top, top + rows), slice(left, left + columns)

    def spacing(self, native: Spacing) -> Spacing:
        """Coarse voxel spacing (z, y, x) in mm for a volume of this native spacing."""
        return native[0], native[1] * self.native[1] / self.inner[0], native[2] * self.native[2] / self.inner[1]

    def to_native(self, start: Triple, stop: Triple) -> tuple[Triple, Triple]:
        """A coarse window [start, stop) as the smallest native one that contains it, in exact integer arithmetic, clipped."""
        low, high = [max(start[0], 0)], [min(stop[0], self.native[0])]
        for axis in (1, 2):
            n, m, offset = self.native[axis], self.inner[axis - 1], self.offset[axis - 1]
            low.append(min(max((start[axis] - offset) * n // m, 0), n))
            high.append(max(min(-(-(stop[axis] - offset) * n // m), n), low[-1]))
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def plane_grid(shape: tuple[int, ...], size: int) -> CoarseGrid:
    """The coarse grid of a volume of this shape (z, y, x) whose longer in-plane side becomes `size` pixels."""
    z, y, x = shape
    factor = size / max(y, x)
    rows, columns = max(1, math.floor(y * factor + 0.5)), max(1, math.floor(x * factor + 0.5))
    return CoarseGrid((z, y, x), size, (rows, columns), ((size - rows) // 2, (size - columns) // 2))


def to_coarse(array: np.ndarray, grid: CoarseGrid, pad_value: float) -> np.ndarray:
    """An image (z, y, x) on the coarse grid by area averaging; same type, integers rounded.

    `pad_value` fills the padding: the lowest value that the scan can have (air, -1024 HU), never 0 HU, which is water.
    """
    coarse = np.full(grid.shape, pad_value, dtype=array.dtype)
    window = coarse[grid.inside]
    for low in range(0, grid.native[0], _SLAB):
        slab = area_resize(array[low : low + _SLAB], grid.inner)
        window[low : low + _SLAB] = np.rint(slab) if array.dtype.kind in "iu" else slab
    return coarse


def labels_to_coarse(labels: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """Nested labels (z, y, x) uint8 on the coarse grid: a coarse voxel is label > k where at least half of its area is.

    Not the nearest voxel: at the usual factor of 2 a coarse center falls on a corner of native voxels, and whichever
    neighbor is taken shifts the whole map by half a voxel.
    """
    coarse = np.zeros(grid.shape, dtype=np.uint8)
    window = coarse[grid.inside]
    for low in range(0, grid.native[0], _SLAB):
        slab = labels[low : low + _SLAB]
        for label in range(1, int(slab.max()) + 1):
            # A float32 area weight is exact to 1e-6; the tolerance keeps a true half a half.
            window[low : low + _SLAB] += area_resize((slab >= label).view(np.uint8), grid.inner) >= 0.5 - 1e-4
    return coarse


def labels_to_native(coarse: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """A coarse map (z, size, size) on the native grid (z, y, x): each voxel takes the coarse one that holds its center."""
    rows, columns = (
        ((2 * np.arange(n) + 1) * m // (2 * n)) + offset
        for n, m, offset in zip(grid.native[1:], grid.inner, grid.offset, strict=True)
    )
    return coarse[:, rows[:, None], columns[None, :]]


def area_resize(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Slices (z, y, x) averaged over the area of each target pixel, as float32 (z, *shape); works for growing too."""
    array = np.ascontiguousarray(array)  # KiTS19's own files have the slices innermost, where every step below is slow
    if array.shape[1:] == (2 * shape[0], 2 * shape[1]):
        wide = array if array.dtype.kind == "f" else array.astype(np.int32)
        total = wide[:, 0::2, 0::2] + wide[:, 0::2, 1::2] + wide[:, 1::2, 0::2] + wide[:, 1::2, 1::2]
        return (total / 4).astype(np.float32)
    return _area_resize_axis(_area_resize_axis(array, shape[0], 1), shape[1], 2)


def _area_resize_axis(array: np.ndarray, m: int, axis: int) -> np.ndarray:
    """The n cells along an axis averaged into m equal ones that span the same length; the weights of each sum to 1."""
    n = array.shape[axis]
    edges = np.arange(m + 1) * n  # in units of 1 / (n m) of the length: integers, so exact
    first = edges[:-1] // m
    result = np.zeros((*array.shape[:axis], m, *array.shape[axis + 1 :]), dtype=np.float32)
    for k in range(int((-(-edges[1:] // m) - first).max())):
        overlap = np.minimum((first + k + 1) * m, edges[1:]) - np.maximum((first + k) * m, edges[:-1])
        weights = (np.maximum(overlap, 0) / n).astype(np.float32)
        cells = np.minimum(first + k, n - 1)  # beyond the last cell the weight is 0
        result += np.take(array, cells, axis) * weights.reshape((-1,) + (1,) * (2 - axis))
    return result
