"""Clean-up of label maps: what one segmentation alone shows to be wrong.

Pure functions on uint8 labels (z, y, x). A cyst is treated as the kidney that it belongs to, so that a map with cysts scores by
KiTS19's rule as it would without them.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kits.core.labels import BACKGROUND, CLASSES, CYST, KIDNEY, TUMOR
from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected, sizes


def clean(
    labels: np.ndarray,
    spacing: Spacing,
    *,
    components: int | None,
    tumor_distance_mm: float | None,
    min_ml: float | None,
    fill_holes: bool,
) -> np.ndarray:
    """Clean up label maps by all steps in order; a step whose value is None or False is left out.

    Args:
        labels: uint8 (z, y, x).
        spacing: (z, y, x) mm.
        components: how many regions of foreground stay, the largest first.
        tumor_distance_mm: see `drop_far_tumors`.
        min_ml: see `drop_specks`.

    Returns:
        A new array, or `labels` itself where nothing changes.
    """
    if components is not None:
        labels = np.where(largest_regions(labels != BACKGROUND, components), labels, BACKGROUND)
    if tumor_distance_mm is not None:
        labels = drop_far_tumors(labels, spacing, tumor_distance_mm)
    if min_ml is not None:
        labels = drop_specks(labels, spacing, min_ml)
    return fill_enclosed(labels) if fill_holes else labels


def largest_regions(mask: np.ndarray, count: int) -> np.ndarray:
    """Keep the `count` largest 26-connected regions of a mask (z, y, x)."""
    window = bounding_slices(mask)
    kept = np.zeros(mask.shape, dtype=bool)
    if window is not None:
        regions = connected(mask[window])
        voxels = sizes(regions)
        largest = np.argsort(-voxels, kind="stable")[:count]
        chosen = np.zeros(len(voxels), dtype=bool)
        chosen[largest[voxels[largest] > 0]] = True
        kept[window] = chosen[regions]
    return kept


def drop_far_tumors(labels: np.ndarray, spacing: Spacing, distance_mm: float) -> np.ndarray:
    """Remove tumor components farther than `distance_mm` from every voxel of kidney or cyst.

    Between voxel centers. Without any of these all tumors stay: one may have replaced the kidney.
    """
    window = bounding_slices(labels == TUMOR)
    if window is None or not ((labels == KIDNEY).any() or (labels == CYST).any()):
        return labels
    reach = [int(np.ceil(distance_mm / step)) for step in spacing]
    result = labels.copy(order="K")
    regions = connected(labels[window] == TUMOR)
    for number, part in enumerate(ndimage.find_objects(regions), start=1):
        component = regions[part] == number
        # The window in which a kidney voxel could be near enough: small, so that the exact distance is cheap.
        low = [max(p.start + w.start - r, 0) for p, w, r in zip(part, window, reach, strict=True)]
        high = [p.stop + w.start + r for p, w, r in zip(part, window, reach, strict=True)]
        around = tuple(slice(lo, hi) for lo, hi in zip(low, high, strict=True))
        kidney = (labels[around] == KIDNEY) | (labels[around] == CYST)
        inner = tuple(slice(p.start + w.start - lo, p.stop + w.start - lo) for p, w, lo in zip(part, window, low, strict=True))
        if not _near(component, kidney, inner, spacing, distance_mm):
            result[around][inner][component] = BACKGROUND
    return result


def _near(component: np.ndarray, kidney: np.ndarray, inner: tuple, spacing: Spacing, distance_mm: float) -> bool:
    """Tell whether a component comes within `distance_mm` of `kidney`, at `inner` of its window."""
    if not kidney.any():
        return False
    grown = ndimage.binary_dilation(component, np.ones((3, 3, 3)))
    if distance_mm >= np.linalg.norm(spacing) and (grown & kidney[inner]).any():
        return True  # they touch, as most tumors do
    distance = ndimage.distance_transform_edt(~kidney, sampling=spacing)
    return bool(distance[inner][component].min() <= distance_mm)


def drop_specks(labels: np.ndarray, spacing: Spacing, min_ml: float) -> np.ndarray:
    """Remove foreground components below `min_ml`; tumor and cyst so small in larger ones become kidney."""
    window = bounding_slices(labels)
    if window is None:
        return labels
    least = min_ml * 1000 / float(np.prod(spacing))
    result = labels.copy(order="K")
    inside = np.ascontiguousarray(labels[window])
    inside = _replace_small(inside, inside != BACKGROUND, least, BACKGROUND)
    # Kidney, not background: a speck of tumor inside a kidney is most likely wrong about the class and right about the organ.
    for label in (TUMOR, CYST):
        inside = _replace_small(inside, inside == label, least, KIDNEY)
    result[window] = inside
    return result


def replace_unsure(labels: np.ndarray, probability: np.ndarray, other: np.ndarray, least: float) -> None:
    """Give tumor regions whose mean `probability` is below `least` the labels of `other`, in place.

    A voxel alone says little, for every border is unsure: what is taken for a tumor and is none is unsure as a whole.
    All arrays are (z, y, x).
    """
    window = bounding_slices(labels == TUMOR)
    if window is None:
        return
    regions = connected(labels[window] == TUMOR)
    unsure = np.bincount(regions.ravel(), probability[window].ravel()) < least * sizes(regions)  # the outside counts 0: never
    np.copyto(labels[window], other[window], where=unsure[regions])


def fill_enclosed(labels: np.ndarray) -> np.ndarray:
    """Give background that foreground encloses on all six sides in 3D the label that borders it most."""
    window = bounding_slices(labels)
    if window is None:
        return labels
    inside = np.pad(labels[window], 1)
    # The complement of a 26-connected foreground is 6-connected: else a hole would leak out through a corner of its wall.
    regions = connected(inside == BACKGROUND, connectivity=6)
    parts = ndimage.find_objects(regions)
    if len(parts) < 2:
        return labels
    outside = int(regions[0, 0, 0])
    for number, part in enumerate(parts, start=1):
        if number == outside:
            continue
        around = tuple(slice(p.start - 1, p.stop + 1) for p in part)  # the padding keeps this inside
        hole = regions[around] == number
        count = np.bincount(inside[around][ndimage.binary_dilation(hole) & ~hole], minlength=len(CLASSES))  # of its shell
        common = CYST if count[CYST] > count[KIDNEY] else KIDNEY
        # A tumor must outnumber kidney and cyst together.
        inside[around][hole] = TUMOR if count[TUMOR] > count[KIDNEY] + count[CYST] else common
    result = labels.copy(order="K")
    result[window] = inside[1:-1, 1:-1, 1:-1]
    return result


def _replace_small(labels: np.ndarray, mask: np.ndarray, least: float, label: int) -> np.ndarray:
    """Relabel the components of a mask that have fewer than `least` voxels; `labels` itself if none has."""
    window = bounding_slices(mask)
    if window is None:
        return labels
    regions = connected(mask[window])
    small = sizes(regions) < least
    small[0] = False
    if not small.any():
        return labels
    result = labels.copy()
    result[window][small[regions]] = label
    return result
