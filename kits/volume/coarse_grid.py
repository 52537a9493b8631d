"""The coarse grid, and images and label maps on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kits.volume.geometry import Spacing, Triple
from kits.volume.windows import slabs

# At least half of a voxel; a float32 weight is exact to 1e-6, so that a true half stays a half.
_HALF = 0.5 - 1e-4


@dataclass(frozen=True)
class CoarseGrid:
    """The grid of the coarse stage: `size` x `size` in-plane, slices as they are or joined.

    Slices are untouched (paper, section 3) or, where thin, fewer and thicker. Rows and columns shrink (or grow) by one common
    factor, so that a slice of 512 x 796 is not squashed; the shorter side is centered and padded. Along each axis the `native`
    voxels and the `inner` coarse ones span exactly the same millimeters.

    Attributes:
        native: (z, y, x) voxels of the volume.
        size: side of the square coarse slice.
        inner: (z, y, x) coarse voxels that hold image, the rest is padding.
        offset: (z, y, x) coarse voxels of padding before them; none along z.
    """

    native: Triple
    size: int
    inner: Triple
    offset: Triple

    @property
    def shape(self) -> Triple:
        """(z, y, x) of a coarse array."""
        return self.inner[0], self.size, self.size

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """Slices of a coarse array that leave its padding out."""
        (_, rows, columns), (_, top, left) = self.inner, self.offset
        return slice(None), slice(top, top + rows), slice(left, left + columns)

    def spacing(self, native: Spacing) -> Spacing:
        """Compute the coarse voxel spacing (z, y, x) in mm for a volume of this native spacing."""
        # n voxels and m coarse ones span the same millimeters, edge to edge: the ratio is n / m. From center to center it would
        # be (n - 1) / (m - 1), and ROIs would shift.
        z, y, x = (step * n / m for step, n, m in zip(native, self.native, self.inner, strict=True))
        return z, y, x

    def to_native(self, start: Triple, stop: Triple) -> tuple[Triple, Triple]:
        """Return the smallest native window around a coarse window [start, stop), in exact integers, clipped."""
        low, high = [], []
        for axis in range(3):
            n, m, offset = self.native[axis], self.inner[axis], self.offset[axis]
            # Edges, not centers: low rounds down and high up, so that no voxel of the coarse region is left out.
            low.append(min(max((start[axis] - offset) * n // m, 0), n))
            high.append(max(min(-(-(stop[axis] - offset) * n // m), n), low[-1]))
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def plane_grid(shape: tuple[int, ...], size: int, planes: int | None = None) -> CoarseGrid:
    """Lay the coarse grid of a volume (z, y, x), whose longer in-plane side becomes `size` pixels.

    `planes` is the number of coarse slices (`coarse_planes`); None keeps the volume's own.
    """
    z, y, x = shape
    # The paper resizes to 256 x 256 (section 3), for slices that are square; of others the longer side decides.
    factor = size / max(y, x)
    rows, columns = max(1, math.floor(y * factor + 0.5)), max(1, math.floor(x * factor + 0.5))
    return CoarseGrid((z, y, x), size, (planes or z, rows, columns), (0, (size - rows) // 2, (size - columns) // 2))


def coarse_planes(slices: int, thickness_mm: float, least_mm: float | None) -> int:
    """Count the coarse slices of at least `least_mm` each that fill the volume; all of them for None.

    Slices that are thick enough already are left as they are.
    """
    if least_mm is None or thickness_mm >= least_mm:
        return slices
    return max(1, math.floor(slices * thickness_mm / least_mm + 1e-6))


def to_coarse(array: np.ndarray, grid: CoarseGrid, pad_value: float) -> np.ndarray:
    """Bring an image (z, y, x) to the coarse grid by area averaging; same type, integers rounded.

    `pad_value` fills the padding: the lowest value that the scan can have (air, -1024 HU), never 0 HU, which is water.
    """
    coarse = np.full((len(array), *grid.shape[1:]), pad_value, dtype=array.dtype)
    window = coarse[grid.inside]
    for start, block in slabs(array):
        means = area_resize(block, grid.inner[1:])
        window[start : start + len(block)] = np.rint(means, out=means) if array.dtype.kind in "iu" else means
    return average_slices(coarse, grid.inner[0])


def average_slices(coarse: np.ndarray, planes: int) -> np.ndarray:
    """Average coarse slices (z, y, x) along z into fewer, if they are more; integers are rounded."""
    if len(coarse) == planes:
        return coarse
    result = np.empty((planes, *coarse.shape[1:]), coarse.dtype)
    for plane, weights, part in _groups(coarse, planes):
        mean = np.tensordot(weights, part.astype(np.float32), axes=1)
        result[plane] = np.rint(mean) if coarse.dtype.kind in "iu" else mean
    return result


def prevailing_slices(coarse: np.ndarray, planes: int) -> np.ndarray:
    """Join coarse labels (z, y, x) along z into fewer, if there are more, as `labels_to_coarse` does."""
    if len(coarse) == planes:
        return coarse
    result = np.zeros((planes, *coarse.shape[1:]), coarse.dtype)
    for plane, weights, part in _groups(coarse, planes):
        top = int(part.max())
        for label in range(top, 0, -1):
            mask = part == label if label > 1 else part > 0
            prevails = np.tensordot(weights, mask.astype(np.float32), axes=1) >= _HALF
            np.copyto(result[plane], label, where=prevails if label > 1 else prevails & (result[plane] == 0))
    return result


def _groups(coarse: np.ndarray, planes: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield every new slice's number, the weights (of sum 1) of the old ones that it covers, and these."""
    n = len(coarse)
    for plane in range(planes):
        low, high = plane * n, (plane + 1) * n  # in units of 1 / (n planes) of the length: integers, so exact
        cells = np.arange(low // planes, -(-high // planes))
        overlap = np.minimum((cells + 1) * planes, high) - np.maximum(cells * planes, low)
        yield plane, (overlap / n).astype(np.float32), coarse[cells[0] : cells[-1] + 1]


def labels_to_coarse(labels: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """Bring labels (z, y, x) uint8 to the coarse grid by majority of area.

    A coarse voxel is foreground where at least half of its area is, and tumor likewise. Where the foreground prevails but no
    label of 2 and above does, it is 1, kidney. Where slices are joined, the same holds of the slices of one coarse slice. Not the
    nearest voxel: at the usual factor of 2 a coarse center falls on a corner of native voxels, and whichever neighbor is taken
    shifts the whole map by half a voxel.
    """
    coarse = np.zeros((len(labels), *grid.shape[1:]), dtype=np.uint8)
    for start, block in slabs(labels):
        top = int(block.max())
        if not top:
            continue
        window = coarse[grid.inside][start : start + len(block)]
        window[_prevails(block > 0, grid)] = 1
        for label in range(top, 1, -1):  # the lower one, tumor before cyst, where two have exactly half
            window[_prevails(block == label, grid)] = label
    return prevailing_slices(coarse, grid.inner[0])


def _prevails(mask: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """Tell where at least half of a coarse voxel's area is inside."""
    return area_resize(mask.view(np.uint8), grid.inner[1:]) >= _HALF


def area_resize(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Average slices (z, y, x) over the area of each target pixel, float32 (z, *shape); may grow too."""
    if array.shape[1:] == (2 * shape[0], 2 * shape[1]):
        return _halve(array)
    if shape[1] > array.shape[2]:  # the rows of a small array grow last, whole and so at the speed of memory
        return _area_resize_axis(_area_resize_axis(array, shape[1], 2), shape[0], 1)
    return _area_resize_axis(_area_resize_axis(array, shape[0], 1), shape[1], 2)


def _halve(array: np.ndarray) -> np.ndarray:
    """Average each 2 x 2 pixels: the usual 512 x 512 to 256 x 256, several times faster."""
    _, height, width = array.shape
    half = np.empty((len(array), height // 2, width // 2), np.float32)
    exact = np.result_type(array.dtype, np.float32)  # 16 bits are exact in float32, wider ones get float64
    whole, rows = np.empty((height, width), exact), np.empty((height // 2, width), exact)
    for target, plane in zip(half, array, strict=True):  # what is between stays in a core's cache
        np.copyto(whole, plane)  # a conversion by itself is faster than one within a sum
        np.add(whole[0::2], whole[1::2], out=rows)
        np.add(rows[:, 0::2], rows[:, 1::2], out=target, casting="same_kind")
        target /= 4
    return half


def _area_resize_axis(array: np.ndarray, m: int, axis: int) -> np.ndarray:
    """Average the n cells of an axis into m equal ones of the same length, each with weights of sum 1."""
    n = array.shape[axis]
    edges = np.arange(m + 1) * n  # in units of 1 / (n m) of the length: integers, so exact
    first = edges[:-1] // m
    array = array.astype(np.float32, copy=False)
    result = np.empty((*array.shape[:axis], m, *array.shape[axis + 1 :]), dtype=np.float32)
    for k in range(int((-(-edges[1:] // m) - first).max())):
        overlap = np.minimum((first + k + 1) * m, edges[1:]) - np.maximum((first + k) * m, edges[:-1])
        weights = (np.maximum(overlap, 0) / n).astype(np.float32).reshape((-1,) + (1,) * (2 - axis))
        cells = np.minimum(first + k, n - 1)  # beyond the last cell the weight is 0
        for target, plane in zip(result, array, strict=True):  # what is between stays in a core's cache
            part = np.take(plane, cells, axis - 1)
            if k == 0:
                np.multiply(part, weights, out=target)
            else:
                target += np.multiply(part, weights, out=part)
    return result
