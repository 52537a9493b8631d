"""Mappings, by name, from the gray volume to the three channels of a pretrained 2D backbone.

The networks see HU as [-1, 1] of the data's window (`data.window_hu`). A narrower window of a source is a part of that range, so
it is given in HU together with the data's, and must lie inside it: what was clipped cannot come back.
"""

from collections.abc import Callable, Sequence

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


def replicate(volume: Tensor, windows: Sequence[Interval]) -> Tensor:
    """Return the slice itself; the normalization spreads it over the three channels."""
    return volume


def neighbors(volume: Tensor, windows: Sequence[Interval]) -> Tensor:
    """Stack the slices z - 1, z and z + 1; the first and the last one stand for what lies beyond."""
    before = torch.cat([volume[:, :, :1], volume[:, :, :-1]], dim=2)
    after = torch.cat([volume[:, :, 1:], volume[:, :, -1:]], dim=2)
    return torch.cat([before, volume, after], dim=1)


def three_windows(volume: Tensor, windows: Sequence[Interval]) -> Tensor:
    """Show the slice through three HU windows."""
    return torch.cat([narrow(volume, window) for window in windows], dim=1)


# (B, 1, D, H, W) -> (B, 1 or 3, D, H, W), all in [-1, 1].
MAPPINGS: dict[str, Callable[[Tensor, Sequence[Interval]], Tensor]] = {
    "replicate": replicate,
    "neighbors": neighbors,
    "windows": three_windows,
}


class InputMapping:
    """A mapping of volumes (B, 1, D, H, W) in [-1, 1] to slices (B D, 1 or 3, H, W) in [-1, 1].

    Args:
        name: replicate, neighbors or windows. windows_hu: the three of `windows`.
        window_hu: of `replicate` and `neighbors`; None is all of `data_window_hu`, the HU that are [-1, 1].
    """

    def __init__(
        self,
        name: str,
        *,
        window_hu: Sequence[float] | None,
        windows_hu: Sequence[Sequence[float]],
        data_window_hu: Sequence[float],
    ) -> None:
        self.map = MAPPINGS[name]
        self.reach = int(name == "neighbors")  # slices to each side that it looks at
        self.window = None if window_hu is None else relative_window(window_hu, data_window_hu)
        self.windows = [relative_window(one, data_window_hu) for one in windows_hu] if name == "windows" else []

    def __call__(self, volume: Tensor) -> Tensor:
        if self.window is not None:
            volume = narrow(volume, self.window)
        return fold(self.map(volume, self.windows))
