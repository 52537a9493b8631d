"""HU to what the networks see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What lies beyond a volume: air. Never 0 HU, which is water.
PAD_HU = -1024
# The body is what is brighter: fat has -100 HU, air and a foam pad less.
BODY_HU = -300


def normalise(hu: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """Clip HU to the window and scale it linearly to [-1, 1], float32 (paper, section 3)."""
    low, high = window
    # The paper's window is [-100, 300], from fat to cortex with contrast; what lies beyond (lung and gas, bone and excreted
    # contrast) need not be told apart.
    scaled = np.clip(hu, low, high).astype(np.float32)
    scaled -= (low + high) / 2
    scaled /= (high - low) / 2
    return scaled
