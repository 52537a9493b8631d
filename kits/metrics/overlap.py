"""KiTS19's scores: Dice of kidney (label > 0) and tumor (label 2), their mean `composite`; volumes.

Cysts are scored beside these as a region of their own; KiTS19's rule counts them as kidney.

Empty policy, where the official scorer's own one gives NaN: both empty is 1, one empty is 0.
"""

from __future__ import annotations

import numpy as np

from kits.core.errors import KitsError
from kits.core.labels import CLASSES, REGIONS, Regions
from kits.volume import Spacing, bounding_slices
from kits.volume.windows import common_window


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Compute Dice of two masks of one shape: 2 |A and B| / (|A| + |B|); 1.0 where both are empty."""
    prediction, truth = prediction.astype(bool, copy=False), truth.astype(bool, copy=False)
    return dice_from_counts(int((prediction & truth).sum()), int(prediction.sum()), int(truth.sum()))


def dice_from_counts(both: int, predicted: int, true: int) -> float:
    """Compute Dice from the voxels in both masks, in the prediction, in the truth; 1.0 for empty ones."""
    return 2 * both / (predicted + true) if predicted + true else 1.0


def confusion(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count voxels (4, 4), true label by row and predicted by column; tables of parts add up.

    Args:
        prediction, truth: uint8 labels 0 to 3 of one shape.
    """
    classes = len(CLASSES)
    pairs = truth.astype(np.uint8, copy=False) * np.uint8(classes) + prediction
    return np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)


def score_names(regions: Regions) -> tuple[str, ...]:
    """Return the names of a case's scores, in the order of a table's columns."""
    return (*regions, "composite")


def scores_from_confusion(table: np.ndarray, regions: Regions = REGIONS) -> dict[str, float]:
    """Compute the Dice of every region and KiTS19's `composite` from the table of one whole case."""
    scores = {}
    for region, labels in regions.items():
        inside = list(labels)
        both = int(table[np.ix_(inside, inside)].sum())
        scores[region] = dice_from_counts(both, int(table[:, inside].sum()), int(table[inside].sum()))
    return {**scores, "composite": float(np.mean([scores[region] for region in REGIONS]))}


def case_confusion(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute `confusion` of one case within the window of all that either marks and scores count.

    Args:
        prediction, truth: uint8 labels 0 to 3 (z, y, x); one may tell cysts apart and the other not.

    Raises:
        KitsError: the two differ in size.
    """
    if prediction.shape != truth.shape:
        raise KitsError(
            f"prediction has {prediction.shape} voxels (z, y, x) but the truth has {truth.shape}; predict in the scan's own grid"
        )
    table = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    window = common_window(prediction, truth)
    if window is not None:  # outside it everything is background, which no score counts
        for found, true in zip(prediction[window], truth[window], strict=True):
            table += confusion(found, true)
    return table


def score_case(prediction: np.ndarray, truth: np.ndarray, regions: Regions = REGIONS) -> dict[str, float]:
    """Score one case, Dice of every region and `composite`, as `case_confusion` counts it."""
    return scores_from_confusion(case_confusion(prediction, truth), regions)


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
