"""Windows of a volume: crops, slabs of slices, and the smallest window around masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kits.volume.geometry import Triple

Window = tuple[slice, slice, slice]
# Slices at a time: 16 MB of int16 at 512 x 512, and 32 of int16 are one cache line where the slice axis is the fastest in memory.
DEPTH = 32
# Rows and columns that are turned over at a time. A tile touches 512 cache lines, which stay in a core's first cache while all
# its slices are taken from them; measured the fastest of 4 x 4 shapes for int16 and uint8 (a fourth of the time without tiles).
_TILE = (16, 32)


def crop(array: np.ndarray, start: Triple, shape: Triple, pad_value: float) -> np.ndarray:
    """Copy the window at `start` (z, y, x; may be negative), filled with `pad_value` outside."""
    window = np.full(shape, pad_value, dtype=array.dtype)
    part = array[tuple(slice(max(low, 0), max(low + n, 0)) for low, n in zip(start, shape, strict=True))]
    window[tuple(slice(max(-low, 0), max(-low, 0) + n) for low, n in zip(start, part.shape, strict=True))] = part
    return window


def bounding_slices(mask: np.ndarray, within: Window | None = None) -> Window | None:
    """Find the smallest window (z, y, x) that holds every non-zero voxel; None where there is none.

    Args:
        within: a window outside of which all are zero, so that the rest of a large volume need not be read.
    """
    window = list(within or (slice(0, size) for size in mask.shape))
    for axis in range(3):  # each pass looks only at what the one before left
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask[tuple(window)].any(axis=others))
        if not len(found):
            return None
        first = window[axis].start
        window[axis] = slice(first + int(found[0]), first + int(found[-1]) + 1)
    return window[0], window[1], window[2]


def common_window(*masks: np.ndarray) -> Window | None:
    """Find the smallest window (z, y, x) that holds every non-zero voxel of all; None without any."""
    windows = [window for window in map(bounding_slices, masks) if window is not None]
    if not windows:
        return None
    z, y, x = (slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*windows, strict=True))
    return z, y, x


def slabs(array: np.ndarray, depth: int = DEPTH) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the slices of a permuted and flipped view (z, y, x), `depth` at a time, contiguous.

    KiTS19's files have the slice axis as the fastest in memory. Reading such a view slice by slice costs a cache miss a voxel;
    here it takes little more than copying the memory once.

    Yields:
        (first slice, block (n, y, x)): a block is contiguous; it is a part of `array` itself where that is contiguous already.
    """
    for start in range(0, len(array), depth):
        yield start, _contiguous(array[start : start + depth])


def _contiguous(block: np.ndarray) -> np.ndarray:
    if block.flags.c_contiguous or abs(block.strides[2]) <= min(abs(block.strides[0]), abs(block.strides[1])):
        return np.ascontiguousarray(block)  # rows lie in one piece: a plain copy is as fast as memory is
    result = np.empty(block.shape, block.dtype)
    rows, columns = _TILE
    for y in range(0, block.shape[1], rows):
        for x in range(0, block.shape[2], columns):
            tile = slice(None), slice(y, y + rows), slice(x, x + columns)
            result[tile] = block[tile]
    return result
