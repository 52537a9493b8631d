"""Tell what but the network may be at fault where a prediction fits its truth badly."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from kits.core.labels import KIDNEY, TUMOR
from kits.metrics.overlap import dice
from kits.volume import Spacing
from kits.volume.agreement import AXES

STEP_MM = 3.0
# Another reading of a prediction is told where it fits the truth that well, and that much better than the prediction as it is.
FITS, BETTER = 0.7, 0.15


def explain_misfit(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> list[str]:
    """Tell if a badly fitting prediction looks mirrored, exchanged, or of another scan; mostly nothing.

    Args:
        prediction, truth: uint8 labels (z, y, x) of one shape; every third millimeter is looked at.
    """
    steps = tuple(slice(None, None, max(1, int(STEP_MM // step))) for step in spacing)
    found, true = prediction[steps], truth[steps]
    kidneys, true_kidneys = found > 0, true > 0
    if not kidneys.any() or not true_kidneys.any():
        return []
    told = []
    own = dice(kidneys, true_kidneys)
    flips = [axes for count in (1, 2, 3) for axes in combinations(range(3), count)]
    fits = {axes: dice(np.flip(prediction, axes)[steps] > 0, true_kidneys) for axes in flips} if own < 1 - BETTER else {}
    best = max(fits, key=fits.__getitem__, default=())
    if best and fits[best] >= max(FITS, own + BETTER):
        how = " and ".join(AXES[axis] for axis in best)
        told.append(
            f"mirrored {how} it would fit (kidney Dice {fits[best]:.2f}, not {own:.2f}): its header or its voxels are wrong"
        )
    elif own == 0:
        told.append("it lies nowhere on the truth's kidneys: is it of another scan, or shifted?")
    exchanged, tumor = dice(found == KIDNEY, true == TUMOR), dice(found == TUMOR, true == TUMOR)
    if (true == TUMOR).any() and exchanged >= max(FITS, tumor + BETTER):
        told.append(f"with labels {KIDNEY} and {TUMOR} exchanged it would fit (tumor Dice {exchanged:.2f}, not {tumor:.2f})")
    return told
