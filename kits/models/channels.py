"""The gray volume as the channels that a pretrained 2D backbone sees.

The networks see HU as [-1, 1] of the data's window (`data.window_hu`). A narrower window of a source is a part of that range, so
it is given in HU together with the data's, and must lie inside it: what was clipped cannot come back.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kits.models.layers import fold

Interval = tuple[float, float]


def relative_window(window_hu: Sequence[float], data_window_hu: Sequence[float]) -> Interval:
    """Express `window_hu` in the network's range, where `data_window_hu` is [-1, 1]."""
    low, high = (float(bound) for bound in data_window_hu)
    first, last = (2 * (bound - low) / (high - low) - 1 for bound in window_hu)
    return first, last


def narrow(volume: Tensor, window: Interval) -> Tensor:
    """Stretch the part `window` of the range [-1, 1] to [-1, 1], and clip what lies outside."""
    low, high = window
    return ((2 * volume - (low + high)) / (high - low)).clamp(-1, 1)


class InputMapping:
    """A mapping of volumes (B, 1, D, H, W) in [-1, 1] to slices (B D, 1 or 3, H, W) in [-1, 1].

    Args:
        name: `replicate`, the slice itself, which the backbone's normalization spreads over three channels; `neighbors`, the
            slices z - 1, z and z + 1; `windows`, the slice through three HU windows.
        window_hu: of `replicate` and `neighbors`; None is all of `data_window_hu`, the HU that are [-1, 1].
        windows_hu: the three of `windows`.
    """

    def __init__(
        self,
        name: str,
        *,
        window_hu: Sequence[float] | None,
        windows_hu: Sequence[Sequence[float]],
        data_window_hu: Sequence[float],
    ) -> None:
        self.reach = int(name == "neighbors")  # slices to each side that it looks at
        shown = windows_hu if name == "windows" else [] if window_hu is None else [window_hu]
        self.windows = [relative_window(one, data_window_hu) for one in shown]

    def __call__(self, volume: Tensor) -> Tensor:
        if self.windows:
            volume = torch.cat([narrow(volume, window) for window in self.windows], dim=1)
        if self.reach:  # the first slice and the last one stand for what lies beyond
            before = torch.cat([volume[:, :, :1], volume[:, :, :-1]], dim=2)
            after = torch.cat([volume[:, :, 1:], volume[:, :, -1:]], dim=2)
            volume = torch.cat([before, volume, after], dim=1)
        return fold(volume)
