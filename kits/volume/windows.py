"""Windows of a volume: crops and the way back, and the smallest window around a mask."""

from __future__ import annotations

import numpy as np

from kits.volume.geometry import Triple

Window = tuple[slice, slice, slice]


def crop(array: np.ndarray, start: Triple, shape: Triple, pad_value: float) -> np.ndarray:
    """Copy the window at `start` (z, y, x; may be negative), filled with `pad_value` outside."""
    window = np.full(shape, pad_value, dtype=array.dtype)
    inside, source = _overlap(array.shape, start, shape)
    window[inside] = array[source]
    return window


def _overlap(bounds: tuple[int, ...], start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
    """Return the part of a window that lies in an array, in the window's and in the array's indices.

    It may be empty.
    """
    low = [min(max(s, 0), b) for s, b in zip(start, bounds, strict=True)]
    high = [max(min(s + n, b), lo) for s, n, b, lo in zip(start, shape, bounds, low, strict=True)]
    source = tuple(slice(lo, hi) for lo, hi in zip(low, high, strict=True))
    empty = any(lo == hi for lo, hi in zip(low, high, strict=True))
    inside = tuple(slice(0, 0) if empty else slice(lo - s, hi - s) for lo, hi, s in zip(low, high, start, strict=True))
    return inside, tuple(slice(0, 0) for _ in source) if empty else source


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
