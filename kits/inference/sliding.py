"""Windows that slide along z: averaged where they overlap, handed on when no later one follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kits.volume.hu import normalise

# By name, (C, D, H, W) of a window or of a few slices; C may be any number.
Maps = dict[str, Tensor]


def inner_parts(depth: int, window: int, reach: int) -> list[tuple[int, int, int, int]]:
    """Lay windows over `depth` for a network whose voxels depend on `reach` slices to each side.

    Returns:
        (start, stop, first, end) of each: the slices that are read, equally many in all, and those of them that nothing beyond
        could change; the latter cover every slice once.
    """
    if depth <= window:
        return [(0, depth, 0, depth)]
    # Each window gives window - 2 reach slices of its own, the first and the last one `reach` more: there the volume itself ends.
    count = -(-(depth - 2 * reach) // (window - 2 * reach))
    size = -(-(depth - 2 * reach) // count) + 2 * reach
    starts = [round(k * (depth - size) / (count - 1)) for k in range(count)]
    firsts = [0, *(start + reach for start in starts[1:]), depth]
    return [(start, start + size, firsts[k], firsts[k + 1]) for k, start in enumerate(starts)]


def window_starts(depth: int, window: int, overlap: float) -> list[int]:
    """Spread windows evenly over `depth`, at least `overlap` of them shared; return first slices."""
    if depth <= window:
        return [0]
    stride = max(1, int(window * (1 - overlap)))
    steps = -(-(depth - window) // stride)
    return [round(step * (depth - window) / steps) for step in range(steps + 1)]


def blend_weights(window: int) -> Tensor:
    """Weigh the slices of a window (window,) by a tent: its middle has seen the most context."""
    distance = torch.arange(window, dtype=torch.float32)
    return 1 + torch.minimum(distance, window - 1 - distance)


def sliding(
    predict: Callable[[int, int], Maps], depth: int, window: int, overlap: float, reach: int | None = None
) -> Iterator[tuple[int, Maps]]:
    """Yield finished slices in order, in the memory of one window and what the last one shares with it.

    Args:
        predict: float32 maps of the slices [start, stop), new ones, which are overwritten here.
        reach: how many slices to each side a voxel's maps depend on. Where it is known, windows repeat no more than that and
            every slice is as a single window of the whole depth would give it; `overlap` says nothing then.

    Yields:
        (first slice, maps of some slices): every slice once.
    """
    if reach is not None and 2 * reach < window:
        for start, stop, first, end in inner_parts(depth, window, reach):
            yield first, {name: values[:, first - start : end - start] for name, values in predict(start, stop).items()}
        return
    starts = window_starts(depth, window, overlap)
    if len(starts) == 1:
        yield 0, predict(0, depth)
        return
    # The shares of all windows at a slice sum to 1, so that their sum is a mean and needs no second map of weights.
    weight = blend_weights(window)
    total = torch.zeros(depth)
    for start in starts:
        total[start : start + window] += weight
    shared: Maps = {}  # weighted sums of the slices from `start` on that earlier windows have seen
    for start, following in zip(starts, [*starts[1:], depth], strict=True):
        maps = predict(start, start + window)
        share = weight / total[start : start + window]
        repeated = [z for z in range(window) if share[z] < 1]  # all others are this window's alone
        for name, values in maps.items():
            for z in repeated:
                values[:, z] *= float(share[z])
            if name in shared:
                values[:, : shared[name].shape[1]] += shared[name]
        done = following - start
        shared = {name: values[:, done:].clone() for name, values in maps.items()}
        finished = {name: values[:, :done] for name, values in maps.items()}
        del maps
        yield start, finished


def to_input(hu: np.ndarray, window_hu: Sequence[float], device: torch.device | str) -> Tensor:
    """Turn slices in HU (D, H, W) into a network's input: (1, 1, D, H, W) in [-1, 1]."""
    values = torch.from_numpy(normalise(hu, window_hu))[None, None]
    # From pinned memory an NVIDIA GPU fetches them itself, while this process goes on.
    return values.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else values.to(device)
