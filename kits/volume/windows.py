"""Windows of a volume: crops, and the smallest window around a mask."""

from __future__ import annotations

import numpy as np

from kits.volume.geometry import Triple

Window = tuple[slice, slice, slice]


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
