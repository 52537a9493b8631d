"""Connected regions of a mask."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np


def connected(mask: np.ndarray, connectivity: Literal[6, 26] = 26) -> np.ndarray:
    """Number the regions of a bool mask (z, y, x) from 1, in unsigned integers; 0 is outside.

    cc3d 4.1 expects too few regions of a mask that is a line of voxels with gaps, and gives up; with a border it does not.
    """
    if not mask.any():
        return np.zeros(mask.shape, np.uint16)
    border = int(sum(size == 1 for size in mask.shape) >= 2)
    padded = np.ascontiguousarray(np.pad(mask, border) if border else mask)
    numbered = np.asarray(cc3d.connected_components(padded, connectivity=connectivity, binary_image=True))
    return numbered[1:-1, 1:-1, 1:-1] if border else numbered


def sizes(regions: np.ndarray) -> np.ndarray:
    """Count the voxels of every region by its number; 0 for the outside.

    Only what is inside is counted, a small part as a rule: several times faster than `cc3d.statistics`.
    """
    return np.bincount(regions[regions > 0], minlength=1)


def region_sizes_and_centers(numbered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the voxels of every region of `connected`, and find its center (z, y, x)."""
    found = cc3d.statistics(np.ascontiguousarray(numbered), no_slice_conversion=True)
    return np.asarray(found["voxel_counts"], dtype=np.int64), np.asarray(found["centroids"], dtype=np.float64)
