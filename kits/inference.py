"""From HU arrays to masks: pure functions over a callable network.

The network takes a window (1, 1, D, H, W) of intensities in [-1, 1] and gives logits (1, C, D, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kits.intensity import PAD_HU, normalise
from kits.labels import BACKGROUND, PRECEDENCE
from kits.postprocess import largest_regions
from kits.roi import Box
from kits.volume import Spacing, crop

Network = Callable[[Tensor], Tensor]
# Slices at a time.
SLAB = 32
# By label id: its place in PRECEDENCE.
RANK = np.argsort(PRECEDENCE).astype(np.uint8)


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


@dataclass(frozen=True)
class BoxReader:
    """How a fine network reads a box of a volume.

    Attributes:
        window_hu: HU window that is scaled to [-1, 1].
        inference: `window` (slices at once) and `overlap`.
        multiple: in-plane size that the network takes, and its multiples.
    """

    network: Network
    window_hu: Sequence[float]
    inference: dict
    multiple: int
    device: torch.device | str

    @classmethod
    def of(cls, network: nn.Module, config: dict, device: torch.device | str) -> BoxReader:
        """As a fine checkpoint's configuration says."""
        multiple = int(network.in_plane_multiple)  # type: ignore[arg-type]
        return cls(network, config["data"]["window_hu"], config["inference"], multiple, device)

    def labels(self, hu: np.ndarray, box: Box) -> np.ndarray:
        """uint8 labels of the box's shape; it is read with its real surroundings up to the network's next input size."""
        outer = fit_to_multiple(box, self.multiple)
        logits = sliding_logits(
            self.network,
            crop(hu, outer.start, outer.shape, PAD_HU),
            window_hu=self.window_hu,
            window=self.inference["window"],
            overlap=self.inference["overlap"],
            device=self.device,
        )
        # In slabs: torch counts classes in int64, eight times the labels.
        found = np.concatenate([part.argmax(0).to(torch.uint8).numpy() for part in logits.split(SLAB, dim=1)])
        offset = np.subtract(box.start, outer.start)
        return found[tuple(slice(o, o + size) for o, size in zip(offset, box.shape, strict=True))]


def touched_faces(labels: np.ndarray) -> np.ndarray:
    """Bool (2, 3): whether the largest region of foreground reaches the first and the last layer of a box along (z, y, x).

    Not any region: a false one at the border would draw the box to where there is still more of it.
    """
    found = largest_regions(labels != BACKGROUND, 1)
    return np.array([[found.take(layer, axis).any() for axis in range(3)] for layer in (0, -1)])


def grow_touched(box: Box, touched: np.ndarray, grow_mm: float, spacing: Spacing, bounds: tuple[int, ...]) -> Box:
    """The box with its touched faces moved outwards by `grow_mm`, cut at the volume's `bounds`."""
    grown = box.grow_mm(grow_mm, spacing, bounds)
    start = [g if t else s for s, g, t in zip(box.start, grown.start, touched[0], strict=True)]
    stop = [g if t else s for s, g, t in zip(box.stop, grown.stop, touched[1], strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def segment_boxes(
    reader: BoxReader, hu: np.ndarray, boxes: list[Box], spacing: Spacing, *, grow_mm: float, grow_rounds: int
) -> tuple[np.ndarray, list[Box]]:
    """Segment every box; one whose result is cut by a face grows there and is read again.

    Args:
        hu: (z, y, x) HU of the whole volume.
        grow_mm: how far a touched face moves.
        grow_rounds: how often a box may grow.

    Returns:
        Labels of the whole volume, uint8 (z, y, x), background outside the boxes, and the boxes that were read in the end.
        Where boxes overlap the label of higher precedence stays: a tumor that one saw whole is not cut by the other's border.
    """
    labels = np.full(hu.shape, BACKGROUND, dtype=np.uint8)
    final = []
    for box in boxes:
        found = reader.labels(hu, box)
        for _ in range(grow_rounds):
            grown = grow_touched(box, touched_faces(found), grow_mm, spacing, hu.shape)
            if grown == box:
                break
            box, found = grown, reader.labels(hu, grown)
        part = labels[box.slices]
        np.copyto(part, found, where=RANK[found] > RANK[part])
        final.append(box)
    return labels, final
