"""Windows that slide along z: their results are averaged where they overlap and handed on once no later window sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kits.intensity import normalise

# By name, (C, D, H, W) of a window or of a few slices; C may be any number.
Maps = dict[str, Tensor]


def window_starts(depth: int, window: int, overlap: float) -> list[int]:
    """First slices of evenly spread windows that cover `depth` and repeat at least `overlap` of each other."""
    if depth <= window:
        return [0]
    stride = max(1, int(window * (1 - overlap)))
    steps = -(-(depth - window) // stride)
    return [round(step * (depth - window) / steps) for step in range(steps + 1)]


def blend_weights(window: int) -> Tensor:
    """A tent over the slices of a window (window,): its middle has seen the most context."""
    distance = torch.arange(window, dtype=torch.float32)
    return 1 + torch.minimum(distance, window - 1 - distance)


def sliding(predict: Callable[[int, int], Maps], depth: int, window: int, overlap: float) -> Iterator[tuple[int, Maps]]:
    """Finished slices in their order; memory is that of one window and what the last one shares with it.

    Args:
        predict: float32 maps of the slices [start, stop), new ones, which are overwritten here.

    Yields:
        (first slice, maps of some slices): every slice once.
    """
    starts = window_starts(depth, window, overlap)
    if len(starts) == 1:
        yield 0, predict(0, depth)
        return
    shared: Maps = {}  # weighted sums of the slices from `start` on that earlier windows have seen, and of the weights
    for start, following in zip(starts, [*starts[1:], depth], strict=True):
        maps = predict(start, start + window)
        weight = blend_weights(window)[:, None, None].to(next(iter(maps.values())).device)
        for values in maps.values():
            values *= weight
        maps["weight"] = weight[None].clone()
        for name, values in shared.items():
            maps[name][:, : values.shape[1]] += values
        done = following - start
        shared = {name: values[:, done:].clone() for name, values in maps.items()}
        total = maps.pop("weight")[:, :done]
        finished = {name: values[:, :done].div_(total) for name, values in maps.items()}
        del maps
        yield start, finished


@torch.inference_mode()
def sliding_logits(
    network: Callable[[Tensor], Tensor],
    hu: np.ndarray,
    *,
    window_hu: Sequence[float],
    window: int,
    overlap: float,
    device: torch.device | str,
) -> Tensor:
    """Logits of a stack of slices, all of them at once, averaged where windows along z overlap.

    Args:
        hu: (D, H, W) in HU; H and W as the network takes them.
        window: slices that the network sees at once.

    Returns:
        float32 (C, D, H, W) on the CPU.
    """

    def predict(start: int, stop: int) -> Maps:
        return {"logits": network(to_input(hu[start:stop], window_hu, device))[0].float()}

    return torch.cat([maps["logits"].cpu() for _, maps in sliding(predict, len(hu), window, overlap)], dim=1)


def to_input(hu: np.ndarray, window_hu: Sequence[float], device: torch.device | str) -> Tensor:
    """Slices in HU (D, H, W) as a network takes them: (1, 1, D, H, W) in [-1, 1]."""
    return torch.from_numpy(normalise(hu, window_hu))[None, None].to(device)
