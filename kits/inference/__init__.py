"""Masks from HU arrays, by networks in memory that does not grow with what is read.

Prediction and rooms above call it. A network takes a window (1, 1, D, H, W) of intensities in [-1, 1] and gives logits (1, C, D,
H, W).
"""

from kits.inference.coarse import coarse_mask
from kits.inference.fallback import Fallback
from kits.inference.fine import BoxMap, BoxReader, BoxReading, fit_to_multiple, paste_labels, read_boxes
from kits.inference.members import Members, Network
from kits.inference.sliding import sliding, window_starts

__all__ = [
    "BoxMap",
    "BoxReader",
    "BoxReading",
    "Fallback",
    "Members",
    "Network",
    "coarse_mask",
    "fit_to_multiple",
    "paste_labels",
    "read_boxes",
    "sliding",
    "window_starts",
]
