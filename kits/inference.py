"""From HU arrays to masks: pure functions over a callable network.

The network takes a window (1, 1, D, H, W) of intensities in [-1, 1] and gives logits (1, C, D, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kits.intensity import normalise
from kits.labels import BACKGROUND
from kits.roi import Box
from kits.volume import crop

Network = Callable[[Tensor], Tensor]


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


@torch.inference_mode()
def sliding_logits(
    network: Network,
    hu: np.ndarray,
    *,
    window_hu: Sequence[float],
    window: int,
    overlap: float,
    device: torch.device | str,
) -> Tensor:
    """Logits of a stack of slices, averaged where windows along z overlap.

    Args:
        hu: (D, H, W) in HU; H and W as the network takes them.
        window: slices that the network sees at once.

    Returns:
        float32 (C, D, H, W) on the CPU.
    """
    depth = len(hu)
    total: Tensor | None = None
    weights = torch.zeros(depth)
    for start in window_starts(depth, window, overlap):
        part = normalise(hu[start : start + window], window_hu)
        logits = network(torch.from_numpy(part)[None, None].to(device))[0].float().cpu()
        if len(part) == depth:
            return logits
        if total is None:
            total = torch.zeros(logits.shape[0], depth, *logits.shape[2:])
        weight = blend_weights(len(part))
        total[:, start : start + window] += logits * weight[:, None, None]
        weights[start : start + window] += weight
    assert total is not None
    return total.div_(weights[:, None, None])


def coarse_mask(
    network: Network,
    coarse_hu: np.ndarray,
    *,
    window_hu: Sequence[float],
    inference: dict,
    device: torch.device | str,
) -> np.ndarray:
    """Where the coarse network sees a kidney: bool (D, H, W) on the coarse grid."""
    logits = sliding_logits(
        network,
        coarse_hu,
        window_hu=window_hu,
        window=inference["window"],
        overlap=inference["overlap"],
        device=device,
    )
    threshold = float(np.log(inference["threshold"] / (1 - inference["threshold"])))
    return (logits[0] > threshold).numpy()


def fit_to_multiple(box: Box, multiple: int) -> Box:
    """The box widened in-plane, about its middle, to the next size that the network takes; it may leave the volume."""
    start, stop = list(box.start), list(box.stop)
    for axis in (1, 2):
        lacking = -(stop[axis] - start[axis]) % multiple
        start[axis] -= lacking // 2
        stop[axis] += lacking - lacking // 2
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def segment_boxes(
    network: Network,
    hu: np.ndarray,
    boxes: list[Box],
    *,
    window_hu: Sequence[float],
    inference: dict,
    multiple: int,
    pad_hu: float,
    device: torch.device | str,
) -> np.ndarray:
    """Labels of the whole volume, uint8 (z, y, x): the network's inside the boxes, background elsewhere.

    Each box is read with its real surroundings up to the network's next input size. Where boxes overlap, the higher
    label stays: a tumor that one of them saw whole is not cut by the other's border.
    """
    labels = np.full(hu.shape, BACKGROUND, dtype=np.uint8)
    for box in boxes:
        outer = fit_to_multiple(box, multiple)
        patch = crop(hu, outer.start, outer.shape, pad_hu)
        logits = sliding_logits(
            network,
            patch,
            window_hu=window_hu,
            window=inference["window"],
            overlap=inference["overlap"],
            device=device,
        )
        found = logits.argmax(0).to(torch.uint8).numpy()
        offset = np.subtract(box.start, outer.start)
        inner = found[tuple(slice(o, o + size) for o, size in zip(offset, box.shape, strict=True))]
        np.maximum(labels[box.slices], inner, out=labels[box.slices])
    return labels
