"""Could a CT scanner have made these voxels? Judged by the histogram of HU and by how slices resemble their neighbors."""

from __future__ import annotations

import numpy as np

from kits.data.findings import ERROR, WARNING, Finding

# Every int16 value has its bin.
BINS, ZERO = 1 << 16, 1 << 15
# HU of what every abdominal CT shows (air around the patient, fat, soft tissue with and without contrast).
AIR, FAT, SOFT = (-1100, -850), (-150, -30), (-10, 250)
# Stored values of CT commonly lie 1024 above HU: DICOM's RescaleIntercept.
OFFSET = 1024
CONVERT = "convert it again from DICOM, in HU"
# Kidneys are 0 to 40 HU without contrast and up to 250 with; below this the median lies in fat or air.
KIDNEY_HU = (-30, 500)
THUMBNAIL = 64


def histogram(slab: np.ndarray) -> np.ndarray:
    """Counts (BINS,) of int16 HU; of every fourth row and column where there are many."""
    step = 4 if slab.shape[1] >= 256 else 1
    return np.bincount(slab[:, ::step, ::step].ravel().astype(np.int32) + ZERO, minlength=BINS)


def share(counts: np.ndarray, window: tuple[int, int], offset: int = 0) -> float:
    """The share of voxels within a window of HU, both ends included."""
    return float(counts[window[0] + offset + ZERO : window[1] + offset + ZERO + 1].sum() / counts.sum())


def peak(counts: np.ndarray, window: tuple[int, int]) -> int | None:
    """The commonest value within a window of HU, noise smoothed away; None where the window is empty."""
    part = counts[window[0] + ZERO : window[1] + ZERO + 1]
    return int(np.convolve(part, np.ones(11), "same").argmax()) + window[0] if part.any() else None


def percentile(counts: np.ndarray, percent: float) -> float:
    """The smallest HU that this percentage of voxels does not exceed."""
    return float(np.searchsorted(np.cumsum(counts), counts.sum() * percent / 100) - ZERO)


def has_pile(counts: np.ndarray, end: int, inward: int) -> bool:
    """Whether voxels pile up at an end of the range, as clipping leaves them; `inward` is 1 at the low end, -1 at the high."""
    inner = counts[end + inward : end + 33 * inward : inward].mean()
    return bool(counts[end] > max(1e-3 * counts.sum(), 10 * inner))


def check_hu(case: str, name: str, counts: np.ndarray) -> list[Finding]:
    """What is wrong with the scale of an image, by name; counts as of `histogram`."""
    present = np.flatnonzero(counts)
    low, high = int(present[0]) - ZERO, int(present[-1]) - ZERO

    def error(what: str, remedy: str = CONVERT) -> list[Finding]:
        return [Finding(case, ERROR, f"{name}: {what}", remedy)]

    if low == high:
        return error(f"every voxel is {low}", "download the file again")
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
        found.append(Finding(case, WARNING, f"{name}: windowed: clipped to {low} .. {high} HU", CONVERT))
    if air < 1e-3:
        found.append(Finding(case, WARNING, f"{name}: no peak of air near -1000 HU", f"look at it; {CONVERT}"))
    tissue = share(counts, (-200, 3000)) or 1.0
    for what, window, least in (("fat", FAT, 5e-3), ("soft tissue", SOFT, 2e-2)):
        if share(counts, window) / tissue < least:
            where = f"between {window[0]} and {window[1]} HU"
            found.append(Finding(case, WARNING, f"{name}: hardly any {what} {where}: is the scale HU?", f"look at it; {CONVERT}"))
    return found


def misplaced_share(coarse: np.ndarray) -> float:
    """The share of slices that resemble a slice elsewhere far more than both of their neighbors; coarse is (z, s, s) HU.

    In a scan in order the most similar slice is a neighbor, so this is near 0; in a shuffled one it is near 1. Only better
    neighbors elsewhere count: slices that all look alike (a phantom, air) are in order as far as anyone can tell.
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
    """Shuffled slices."""
    misplaced = misplaced_share(coarse)
    if misplaced < 0.25:
        return []
    what = f"{name}: slices are not in order: {misplaced:.0%} of them resemble distant slices more than their neighbors"
    return [Finding(case, ERROR, what, "sort them by position: convert it again from DICOM")]


def check_kidney_hu(case: str, name: str, median: float) -> list[Finding]:
    """A label map that lies on fat, air or bone belongs to another image."""
    low, high = KIDNEY_HU
    if low <= median <= high:
        return []
    what = f"{name}: what it calls kidney has {median:g} HU (median) in the image, which is no kidney: not this image's labels"
    return [Finding(case, ERROR, what, "find the label map of this image, in its orientation")]
