"""Soundness of an image and its labels, by HU and by how slices resemble their neighbors."""

from __future__ import annotations

import numpy as np

from kits.data.findings import ERROR, WARNING, Finding
from kits.volume.plausible import oddities

# Kidneys are 0 to 40 HU without contrast and up to 250 with; below this the median lies in fat or air.
KIDNEY_HU = (-30, 500)
THUMBNAIL = 64


def check_hu(case: str, name: str, counts: np.ndarray) -> list[Finding]:
    """Find what is wrong with the HU scale of an image by its `kits.volume.plausible.histogram`."""
    return [Finding(case, ERROR if odd.serious else WARNING, f"{name}: {odd.what}", odd.remedy) for odd in oddities(counts)]


def misplaced_share(coarse: np.ndarray) -> float:
    """Compute the share of slices that resemble a slice elsewhere far more than both neighbors.

    `coarse` is (z, s, s) HU. Near 0 in a scan in order, near 1 in a shuffled one. Only better neighbors elsewhere count: slices
    that all look alike (a phantom, air) are in order as far as anyone can tell.
    """
    if len(coarse) < 4:
        return 0.0
    step = max(1, coarse.shape[1] // THUMBNAIL)
    side = coarse.shape[1] // step
    cut = coarse[:, : side * step, : side * step].clip(-200, 200).astype(np.float32)
    pixels = cut.reshape(len(cut), side, step, side, step).mean(axis=(2, 4)).reshape(len(cut), -1)
    pixels -= pixels.mean(axis=0)  # what is common to all slices says nothing, and would cost float32 its digits below
    squares = (pixels * pixels).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares[None] - 2 * (pixels @ pixels.T), 0) / pixels.shape[1]
    np.fill_diagonal(distance, np.inf)
    after = np.append(np.diagonal(distance, 1), np.inf)
    before = np.append(np.inf, np.diagonal(distance, -1))
    nearer = np.minimum(after, before)
    # 1 HU squared: below it rounding and not anatomy decides. A body that is symmetric along z, as phantoms are, has equals far
    # apart; but there, too, neighbors are far closer than slices at random.
    misplaced = (nearer > 1.5 * distance.min(axis=1) + 1) & (nearer > 0.35 * np.median(distance, axis=1))
    return float(misplaced.mean())


def check_order(case: str, name: str, coarse: np.ndarray) -> list[Finding]:
    """Check that slices are in order."""
    misplaced = misplaced_share(coarse)
    if misplaced < 0.25:
        return []
    what = f"{name}: slices are not in order: {misplaced:.0%} of them resemble distant slices more than their neighbors"
    return [Finding(case, ERROR, what, "sort them by position: convert it again from DICOM")]


def check_kidney_hu(case: str, name: str, median: float) -> list[Finding]:
    """Refuse a label map that lies on fat, air or bone: it belongs to another image."""
    low, high = KIDNEY_HU
    if low <= median <= high:
        return []
    what = f"{name}: what it calls kidney has {median:g} HU (median) in the image, which is no kidney: not this image's labels"
    return [Finding(case, ERROR, what, "find the label map of this image, in its orientation")]
