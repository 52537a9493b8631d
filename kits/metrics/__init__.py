"""Scores of a segmentation against the truth; rooms above may call it.

Here: overlap, volumes and means, which need numpy alone. `surface`, `detection` and `case` are imported by their names, since
they bring scipy's trees and the component finder.
"""

from kits.metrics.overlap import (
    case_confusion,
    confusion,
    dice,
    dice_from_counts,
    score_case,
    score_names,
    scores_from_confusion,
    volumes_ml,
)

__all__ = [
    "case_confusion",
    "confusion",
    "dice",
    "dice_from_counts",
    "score_case",
    "score_names",
    "scores_from_confusion",
    "volumes_ml",
]
