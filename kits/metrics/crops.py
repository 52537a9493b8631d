"""The box around two masks: everything that is scored lies in it."""

from __future__ import annotations

import numpy as np

from kits.volume import bounding_slices


def common_window(prediction: np.ndarray, truth: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Find the smallest window (z, y, x) that holds every non-zero voxel of both; None without any."""
    windows = [window for window in (bounding_slices(prediction), bounding_slices(truth)) if window is not None]
    if not windows:
        return None
    z, y, x = (slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*windows, strict=True))
    return z, y, x
