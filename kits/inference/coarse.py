"""The coarse stage: where a kidney is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kits.inference.fallback import Fallback
from kits.inference.members import Members, Network
from kits.inference.sliding import Maps, sliding, to_input


@torch.inference_mode()
def coarse_mask(
    network: Network | Members,
    coarse_hu: np.ndarray,
    *,
    window_hu: Sequence[float],
    inference: Mapping[str, Any],
    device: torch.device | str,
    fallback: Fallback | None = None,
) -> np.ndarray:
    """Where the coarse network, or the mean of several, sees a kidney: bool (D, H, W) on the coarse grid.

    Args:
        inference: `window` (slices at once), `overlap` and `threshold` (a probability).
        fallback: what to do without memory, and where to leave a warning of it; one that nobody reads otherwise.
    """
    members = network if isinstance(network, Members) else Members([network])
    fallback = fallback or Fallback(members.networks, device, inference["window"], "coarse")

    def attempt(device: torch.device, window: int) -> np.ndarray:
        def predict(start: int, stop: int) -> Maps:
            return members(to_input(coarse_hu[start:stop], window_hu, device))

        mask = np.empty(coarse_hu.shape, dtype=bool)
        for start, maps in sliding(predict, len(coarse_hu), window, inference["overlap"]):
            found = maps["classes"][0] > inference["threshold"]
            mask[start : start + len(found)] = found.cpu().numpy()
        return mask

    return fallback.run(attempt)
