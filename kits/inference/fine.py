"""The fine stage: what is in the boxes of a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kits.config.schema.exported import ExportedFine
from kits.config.schema.training import Fine
from kits.core.labels import BACKGROUND, PRECEDENCE, TUMOR
from kits.inference.devices import Fallback
from kits.inference.members import Members, disagreement_of
from kits.inference.sliding import Maps, sliding, to_input
from kits.volume import Spacing, Triple, crop
from kits.volume.components import connected, sizes
from kits.volume.hu import PAD_HU
from kits.volume.postprocess import replace_unsure
from kits.volume.rois import Box

# By label id: its place in PRECEDENCE.
RANK = np.argsort(PRECEDENCE).astype(np.uint8)
FULL = 255  # what 1 is in a map of bytes


@dataclass(frozen=True)
class BoxReading:
    """The output of the fine network in one box.

    Attributes:
        labels: uint8 (z, y, x) of the box.
        maps: uint8 (channels, z, y, x) by output: `probabilities` of every class but the background and `uncertainty` (entropy of
            the mean, mutual information) with 255 for 1; `sources`, the labels of each source.
    """

    box: Box
    labels: np.ndarray
    maps: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def touched(self) -> np.ndarray:
        """Bool (2, 3): the largest region of foreground reaches the first and the last layer of an axis.

        Not any region: a false one at the border would draw the box to where there is still more of it.
        """
        if not (touched := faces(self.labels != BACKGROUND)).any():
            return touched
        regions = connected(self.labels != BACKGROUND)
        return faces(regions, int(sizes(regions).argmax()))


@dataclass(frozen=True)
class BoxMap:
    """A map of a volume that is 0 outside its boxes, kept as the boxes alone.

    Attributes:
        shape: (z, y, x) of the volume.
        blocks: uint8 (z, y, x), one for each of `boxes`.
        unit: a stored number times this is the value; 1 for labels.
    """

    shape: Triple
    boxes: Sequence[Box]
    blocks: Sequence[np.ndarray]
    unit: float

    def whole(self) -> np.ndarray:
        """Paste the blocks into uint8 (z, y, x); where boxes overlap the larger number or higher label stays."""
        values = np.zeros(self.shape, np.uint8)
        for box, block in zip(self.boxes, self.blocks, strict=True):
            part = values[box.slices]
            if self.unit == 1:
                paste(part, block)
            else:
                np.maximum(part, block, out=part)
        return values


def paste(target: np.ndarray, found: np.ndarray) -> None:
    """Lay labels (z, y, x) over others: the one of higher precedence stays."""
    for below, above in zip(target, found, strict=True):
        if below.any():
            np.copyto(below, above, where=RANK[above] > RANK[below])
        else:
            below[...] = above


def fit_to_multiple(box: Box, multiple: int) -> Box:
    """Widen the box in-plane to a size that the network takes; it may leave the volume."""
    lacking = -np.array(box.shape) % (1, multiple, multiple)
    start = box.start - lacking // 2
    return Box.of(start, start + box.shape + lacking)


@dataclass(frozen=True)
class BoxReader:
    """A reader of boxes of a volume by the fine networks.

    Attributes:
        window_hu: HU window that is scaled to [-1, 1].
        overlap: share of a window that the next one repeats, where networks do not tell how far along z they see.
        multiple: in-plane size that the networks take, and its multiples.
        fallback: what to do without memory.
        parts: into so many a pixel is split along each side before the networks see it; their maps are joined again.
        tumor_confidence: regions of tumor of a lower mean probability become what is next most probable there.
    """

    members: Members
    window_hu: Sequence[float]
    overlap: float
    multiple: int
    fallback: Fallback
    parts: int = 1
    tumor_confidence: float | None = None

    @classmethod
    def of(
        cls,
        members: Members,
        options: ExportedFine | Fine,
        fallback: Fallback,
        spacing: Spacing,
    ) -> BoxReader:
        """Set up as a checkpoint or a training says, for volumes of this spacing (z, y, x) in mm."""
        multiple = int(np.lcm.reduce([int(one.in_plane_multiple) for one in members.networks]))  # type: ignore[attr-defined]
        limit = options.inference.pixel_mm
        parts = max(1, math.ceil(max(spacing[1:]) / limit - 1e-6)) if limit else 1
        own = options.inference
        return cls(members, options.data.window_hu, own.overlap, multiple, fallback, parts, own.tumor_confidence)

    def read(self, hu: np.ndarray, box: Box) -> BoxReading:
        """Read a box with its real surroundings, up to the network's next input size.

        Classes are chosen as soon as a slice is finished, so that no probability is held of more than a window.

        Args:
            hu: (z, y, x) HU of the whole volume.

        Raises:
            KitsError: memory does not suffice on any device.
        """
        return self.fallback.run(lambda device, window: self._read(hu, box, device, window))

    @torch.inference_mode()
    def _read(self, hu: np.ndarray, box: Box, device: torch.device, window: int) -> BoxReading:
        outer = fit_to_multiple(box, self.multiple)
        rows, columns = (slice(a - b, a - b + n) for a, b, n in zip(box.start[1:], outer.start[1:], box.shape[1:], strict=True))

        def predict(start: int, stop: int) -> Maps:
            corner = (outer.start[0] + start, *outer.start[1:])
            # Real surroundings, not a box on black: patches of the training are cut the same way. Beyond the volume is air.
            part = crop(hu, corner, (stop - start, *outer.shape[1:]), PAD_HU)
            return self._maps(to_input(part, self.window_hu, device))

        reading = BoxReading(box, np.empty(box.shape, np.uint8))
        for start, maps in sliding(predict, box.shape[0], window, self.overlap, self.members.reach):
            for name, values in self._finish({name: values[:, :, rows, columns] for name, values in maps.items()}).items():
                target = reading.labels[None] if name == "labels" else reading.maps.get(name)
                if target is None:
                    target = reading.maps[name] = np.empty((len(values), *box.shape), np.uint8)
                target[:, start : start + values.shape[1]] = values.cpu().numpy()
        if self.tumor_confidence and "next" in reading.maps:
            tumor, beside = (reading.maps.pop(name)[0] for name in ("tumor", "next"))
            replace_unsure(reading.labels, tumor, beside, FULL * self.tumor_confidence)
        return reading

    def _maps(self, volume: Tensor) -> Maps:
        """Ask the members about a window (1, 1, D, H, W), whose pixels are split for them."""
        if self.parts == 1:
            return self.members(volume)
        parts = (1, self.parts, self.parts)
        finer = functional.interpolate(volume, scale_factor=parts, mode="trilinear", align_corners=False)
        return {name: functional.avg_pool3d(values, parts) for name, values in self.members(finer).items()}

    def _finish(self, maps: Maps) -> Maps:
        """Turn finished slices into bytes."""
        classes = maps["classes"]
        finished = {"labels": most_probable(classes)[None]}
        if self.tumor_confidence and len(classes) > TUMOR:
            finished["tumor"] = to_bytes(classes[TUMOR])[None]
            finished["next"] = most_probable(classes.index_fill(0, torch.tensor(TUMOR, device=classes.device), -1.0))[None]
        if "probabilities" in self.members.outputs:
            finished["probabilities"] = to_bytes(classes[1:])
        if "unsure" in maps:
            finished["uncertainty"] = to_bytes(disagreement_of(maps))
        if "sources" in maps:
            finished["sources"] = torch.stack([most_probable(one) for one in maps["sources"].split(len(classes))])
        return finished


def most_probable(classes: Tensor) -> Tensor:
    """Choose the class of the largest value of (C, D, H, W), the first of equals: uint8 (D, H, W).

    As `argmax` over the classes, which on a CPU takes ten times as long and counts in int64.
    """
    best, labels = classes[0], torch.zeros(classes.shape[1:], dtype=torch.uint8, device=classes.device)
    for label in range(1, len(classes)):
        labels.masked_fill_(classes[label] > best, label)
        best = torch.maximum(best, classes[label])
    return labels


def to_bytes(values: Tensor) -> Tensor:
    """Turn 0 to 1 into 0 to 255."""
    return (values * FULL).round().clamp(0, FULL).to(torch.uint8)


def faces(values: np.ndarray, value: int = True) -> np.ndarray:
    """Tell, bool (2, 3), whether the first and the last layer along (z, y, x) hold a value."""
    return np.array([[(values.take(layer, axis) == value).any() for axis in range(3)] for layer in (0, -1)])


def read_boxes(
    reader: BoxReader, hu: np.ndarray, boxes: Sequence[Box], spacing: Spacing, *, grow_mm: float, grow_rounds: int
) -> list[BoxReading]:
    """Read every box; one whose result is cut by a face grows there and is read again.

    Args:
        hu: (z, y, x) HU of the whole volume.
        grow_mm: how far a touched face moves.
        grow_rounds: how often a box may grow.
    """
    readings = []
    for box in boxes:
        reading = reader.read(hu, box)
        for _ in range(grow_rounds):
            old, (low, high) = reading.box, reading.touched
            wide = old.grow_mm(grow_mm, spacing, hu.shape)
            grown = Box.of(np.where(low, wide.start, old.start), np.where(high, wide.stop, old.stop))
            if grown == reading.box:
                break
            reading = reader.read(hu, grown)
        readings.append(reading)
    return readings


def paste_labels(readings: Sequence[BoxReading], shape: tuple[int, ...]) -> np.ndarray:
    """Paste what was read into labels of the whole volume, uint8 (z, y, x), 0 outside the boxes.

    Where boxes overlap the label of higher precedence stays: a tumor that one saw whole is not cut by the other's border.
    """
    labels = np.zeros(shape, dtype=np.uint8)  # pages that are never written take no memory
    for reading in readings:
        paste(labels[reading.box.slices], reading.labels)
    return labels
