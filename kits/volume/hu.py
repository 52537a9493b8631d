"""HU: what the networks see of it, and whether a CT scanner could have made a histogram of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.volume import slabs

# What lies beyond a volume: air. Never 0 HU, which is water.
PAD_HU = -1024
# The body is what is brighter: fat has -100 HU, air and a foam pad less.
BODY_HU = -300
# Every int16 value has its bin.
BINS, ZERO = 1 << 16, 1 << 15
# HU of what every abdominal CT shows (air around the patient, fat, soft tissue with and without contrast).
AIR, FAT, SOFT = (-1100, -850), (-150, -30), (-10, 250)
# Stored values of CT commonly lie 1024 above HU: DICOM's RescaleIntercept.
OFFSET = 1024
CONVERT = "convert it again from DICOM, in HU"
# Slices that `counts_of` looks at.
LOOKED_AT = 64


def normalise(hu: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """Clip HU to the window and scale it linearly to [-1, 1], float32 (paper, section 3)."""
    low, high = window
    # The paper's window is [-100, 300], from fat to cortex with contrast; what lies beyond (lung and gas, bone and excreted
    # contrast) need not be told apart.
    scaled = np.clip(hu, low, high).astype(np.float32)
    scaled -= (low + high) / 2
    scaled /= (high - low) / 2
    return scaled


@dataclass(frozen=True)
class Oddity:
    """An oddity of the scale of an image; `serious` where it cannot be HU."""

    serious: bool
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def histogram(slab: np.ndarray) -> np.ndarray:
    """Count int16 HU (BINS,); of every fourth row and column where there are many."""
    step = 4 if slab.shape[1] >= 256 else 1
    return np.bincount(slab[:, ::step, ::step].astype(np.intp).ravel() + ZERO, minlength=BINS)


def share(counts: np.ndarray, window: tuple[int, int], offset: int = 0) -> float:
    """Compute the share of voxels within a window of HU, both ends included."""
    return float(counts[window[0] + offset + ZERO : window[1] + offset + ZERO + 1].sum() / counts.sum())


def peak(counts: np.ndarray, window: tuple[int, int]) -> int | None:
    """Find the commonest value within a window of HU, noise smoothed away; None where it is empty."""
    part = counts[window[0] + ZERO : window[1] + ZERO + 1]
    return int(np.convolve(part, np.ones(11), "same").argmax()) + window[0] if part.any() else None


def percentile(counts: np.ndarray, percent: float) -> float:
    """Find the smallest HU that this percentage of voxels does not exceed."""
    return float(np.searchsorted(np.cumsum(counts), counts.sum() * percent / 100) - ZERO)


def has_pile(counts: np.ndarray, end: int, inward: int) -> bool:
    """Tell whether voxels pile up at an end of the range, low (`inward` 1) or high (-1), as by clipping."""
    inner = counts[end + inward : end + 33 * inward : inward].mean()
    return bool(counts[end] > max(1e-3 * counts.sum(), 10 * inner))


def counts_of(array: np.ndarray) -> np.ndarray:
    """Count the HU of a whole volume (z, y, x) int16, of evenly spread slices where there are many."""
    step = max(1, len(array) // LOOKED_AT)
    return np.sum([histogram(slab) for _, slab in slabs(array[::step])], axis=0)


def oddities(counts: np.ndarray) -> list[Oddity]:
    """Find what is wrong with the scale of an image; counts as of `histogram`."""
    present = np.flatnonzero(counts)
    low, high = int(present[0]) - ZERO, int(present[-1]) - ZERO

    def error(what: str, remedy: str = CONVERT) -> list[Oddity]:
        return [Oddity(True, what, remedy)]

    if low == high:
        return error(f"every voxel is {low}")
    if low >= -2 and high <= 4:
        return error(f"values only from {low} to {high}: a label map, or an image scaled to 0..1, not HU")
    air = share(counts, AIR)
    if air < 1e-3 and share(counts, (-150, 150)) > 5e-3 and share(counts, (-150, 300), OFFSET) > 2e-2:
        return error(f"unscaled: air lies near 0 and tissue near {OFFSET}, the offset of -{OFFSET} is missing")
    piles = has_pile(counts, low + ZERO, 1), has_pile(counts, high + ZERO, -1)
    if low > -500 and all(piles):
        return error(f"windowed: values are clipped to {low} .. {high} and pile up at both ends")
    if low > -500:
        return error(f"the darkest voxel is {low} HU, so there is no air: a missing offset or a windowed picture")
    found = []
    if all(piles) and high < 1500:
        found.append(Oddity(False, f"windowed: clipped to {low} .. {high} HU", CONVERT))
    if air < 1e-3:
        found.append(Oddity(False, "no peak of air near -1000 HU", f"look at it; {CONVERT}"))
    tissue = share(counts, (-200, 3000)) or 1.0
    for what, window, least in (("fat", FAT, 5e-3), ("soft tissue", SOFT, 2e-2)):
        if share(counts, window) / tissue < least:
            where = f"between {window[0]} and {window[1]} HU"
            found.append(Oddity(False, f"hardly any {what} {where}: is the scale HU?", f"look at it; {CONVERT}"))
    return found
