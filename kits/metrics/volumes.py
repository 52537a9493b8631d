"""Volumes of regions, and how far a predicted one is off."""

from __future__ import annotations

import numpy as np

from kits.core.labels import CLASSES, Regions
from kits.volume import Spacing, bounding_slices


def volumes_ml(labels: np.ndarray, spacing: Spacing, regions: Regions) -> dict[str, float]:
    """Measure the volume of every region in mL, as scores take it: the kidney with tumors and cysts.

    Args:
        labels: uint8 (z, y, x).
        spacing: (z, y, x) mm.
    """
    window = bounding_slices(labels)
    counts = [0] * len(CLASSES)
    if window is not None:
        for label in range(1, len(CLASSES)):
            counts[label] = int(np.count_nonzero(labels[window] == label))
    voxel_ml = float(np.prod(spacing)) / 1000
    return {region: sum(counts[label] for label in inside) * voxel_ml for region, inside in regions.items()}


def difference_percent(predicted_ml: float, true_ml: float) -> float:
    """Compute predicted less true volume in percent of the true; 0 if both are 0, NaN if only that is."""
    if not true_ml:
        return float("nan") if predicted_ml else 0.0
    return 100 * (predicted_ml - true_ml) / true_ml
