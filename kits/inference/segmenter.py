"""The whole two-stage method as one plain object: load checkpoints, segment volumes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from kits.config.schema.base import Options
from kits.config.schema.exported import Exported, ExportedCoarse, ExportedFine, SegmenterOptions
from kits.core.errors import KitsError
from kits.core.labels import regions_of
from kits.inference.coarse import Rois, find_rois_in
from kits.inference.devices import Fallback, pick_device, pick_precision
from kits.inference.fine import FULL, BoxMap, BoxReader, BoxReading, paste_labels, read_boxes
from kits.inference.members import Members, agreed, limit_slices
from kits.inference.onnx_network import device_for, load_member, refuse_options
from kits.metrics import volumes_ml
from kits.models.folding import fold_norms
from kits.models.memory import keep_freed_memory
from kits.volume import Triple, Volume, bounding_slices, doubts
from kits.volume.hu import counts_of, oddities
from kits.volume.parts import Part, middle_of, parts_of
from kits.volume.postprocess import clean
from kits.volume.rois import Box

OptionsT = TypeVar("OptionsT", bound=Options)
UNCERTAINTIES = ("entropy", "mutual_information")


@dataclass(frozen=True)
class Segmentation:
    """The result of one volume.

    Attributes:
        labels: uint8 (z, y, x): 0 background, 1 kidney, 2 tumor and, from a checkpoint that knows it, 3 cyst.
        boxes: the ROIs in voxels of the volume, largest first, as the fine stage read them in the end.
        warnings: what a reader of the result should know.
        seconds: wall time of each step.
        volumes_ml: of each region in mL: kidney (its tumors and cysts included), tumor and, from such a checkpoint, cyst.
        parts: every kidney and every tumor with its side and volume.
        probabilities: by class, where asked for (`outputs`); before the clean-up of the labels, as the next two are.
        uncertainty: `entropy` of the members' mean and their `mutual_information`, in units of ln(classes), where asked for. The
            members are the checkpoints of an ensemble, or the sources of one.
        sources: labels by each source alone, where asked for.
    """

    labels: np.ndarray
    boxes: list[Box]
    warnings: list[str]
    seconds: dict[str, float]
    volumes_ml: dict[str, float]
    parts: list[Part] = field(default_factory=list)
    probabilities: dict[str, BoxMap] = field(default_factory=dict)
    uncertainty: dict[str, BoxMap] = field(default_factory=dict)
    sources: list[BoxMap] = field(default_factory=list)


class Segmenter:
    """Coarse and fine networks, each with the settings that its file holds.

    `classes` names the labels that it writes. The networks are its own from then on: it changes them for speed, their results by
    rounding alone.

    Attributes:
        trained: the settings of every checkpoint, by stage. coarse_settings, fine_settings: those that hold, with the options
            in them.
        device, precision: what the networks are computed on and in: 32, bf16 or 16.
    """

    def __init__(
        self,
        coarse: Sequence[tuple[nn.Module, Exported]],
        fine: Sequence[tuple[nn.Module, Exported]],
        device: torch.device,
        options: SegmenterOptions | None = None,
    ) -> None:
        self.options = own = options or SegmenterOptions()
        self.trained = {"coarse": [settings for _, settings in coarse], "fine": [settings for _, settings in fine]}
        first, second = (agreed(settings, stage) for stage, settings in self.trained.items())
        assert isinstance(first, ExportedCoarse)
        assert isinstance(second, ExportedFine)
        self.coarse_settings = changed(first, roi=changed(first.roi, margin_mm=own.margin_mm))
        self.fine_settings = changed(
            second,
            inference=changed(second.inference, window=own.window, mirror=own.mirror, tumor_confidence=own.tumor_confidence),
            postprocess=changed(second.postprocess, min_ml=own.min_component_ml),
        )
        coarse_networks, fine_networks = [network for network, _ in coarse], [network for network, _ in fine]
        exported = refuse_options([*coarse_networks, *fine_networks], own)
        for network in fine_networks:
            fold_norms(network)
        if device.type == "cpu":
            keep_freed_memory()
        self.device = device
        self.precision = "32" if exported else pick_precision(own.precision, device)
        mirror = self.fine_settings.inference.mirror
        self.coarse = Members(coarse_networks, self.precision, device.type, mirror)
        self.fine = Members(fine_networks, self.precision, device.type, mirror, own.outputs)
        if own.slices_at_once is not None:
            limit_slices(fine_networks, own.slices_at_once)
        self.classes = self.fine_settings.data.classes

    @classmethod
    def load(
        cls,
        coarse: Path | str | Sequence[Path | str],
        fine: Path | str | Sequence[Path | str],
        device: str = "auto",
        options: SegmenterOptions | None = None,
    ) -> Segmenter:
        """Load the checkpoints of both stages, one or several that are averaged, onto a device.

        `auto` is a GPU if there is one. Files that end in .onnx are networks that kits.export wrote: they compute on the CPU, by
        onnxruntime.

        Raises:
            KitsError: a file is no checkpoint of that stage, those of a stage differ in their settings, or the device cannot be
                used.
        """
        given = {"coarse": paths_of(coarse), "fine": paths_of(fine)}
        target = pick_device(device_for([*given["coarse"], *given["fine"]], device))
        pairs = {stage: [load_member(path, stage, target) for path in paths] for stage, paths in given.items()}
        return cls(pairs["coarse"], pairs["fine"], target, options)

    def segment(self, volume: Volume) -> Segmentation:
        """Find the kidneys coarsely, then outline kidney and tumor inside the ROIs at original resolution.

        Beside the volume and its labels there is never more in memory than the coarse volume, or a window of the fine stage.

        Args:
            volume: array (z, y, x) in HU.

        Raises:
            KitsError: memory does not suffice on any device, or the numbers are no HU and not `options.allow_implausible`.
        """
        began = time.perf_counter()
        scale = oddities(counts_of(volume.array))
        if not self.options.allow_implausible and (serious := [oddity for oddity in scale if oddity.serious]):
            raise KitsError(f"{serious[0]}, or add allow_implausible=true")
        warnings = [*volume.grid.notes, *(f"HU implausible: {oddity}" for oddity in scale)]
        warnings += doubts.doubt_chest(volume.array, volume.spacing)
        rois = self.find_rois(volume)
        found = time.perf_counter()
        readings, reading_warnings = self._read(volume, rois)
        labels = paste_labels(readings, volume.array.shape)
        outlined = time.perf_counter()
        boxes = [reading.box for reading in readings]
        low, high = np.min([box.start for box in boxes], axis=0), np.max([box.stop for box in boxes], axis=0)
        z, y, x = map(slice, low.tolist(), high.tolist())
        window = bounding_slices(labels, (z, y, x))
        if window is not None:  # clean-up takes several times the memory of what it is given
            labels[window] = clean(labels[window], volume.spacing, **dict(self.fine_settings.postprocess))
        parts = parts_of(labels, volume.spacing, middle_of(volume.array, window[0]), window) if window else []
        warnings += rois.warnings + reading_warnings + doubts.doubt_parts(parts, labels.shape)
        warnings += doubts.doubt_contrast(volume.array[window], labels[window]) if window else []
        volumes = volumes_ml(labels[window or np.s_[:0]], volume.spacing, regions_of(self.classes))
        cleaned = time.perf_counter()
        seconds = {"coarse": found - began, "fine": outlined - found, "postprocess": cleaned - outlined}
        return Segmentation(
            labels,
            boxes,
            warnings,
            seconds,
            volumes,
            parts,
            probabilities=dict(zip(self.classes[1:], maps_of(readings, "probabilities", labels.shape), strict=False)),
            uncertainty=dict(zip(UNCERTAINTIES, maps_of(readings, "uncertainty", labels.shape), strict=False)),
            sources=maps_of(readings, "sources", labels.shape, unit=1),
        )

    def find_rois(self, volume: Volume) -> Rois:
        """Find the ROIs of a volume in HU with margin; without one its body, with a warning."""
        return find_rois_in(volume, self.coarse, self.coarse_settings, self.device)

    def _read(self, volume: Volume, rois: Rois) -> tuple[list[BoxReading], list[str]]:
        """Read the boxes by the fine stage; its readings, and warnings."""
        for network in self.fine.networks:
            network.to(self.device)  # type: ignore[attr-defined]  # an earlier case may have moved it
        fallback = Fallback(self.fine.networks, self.device, self.fine_settings.inference.window, "fine")
        reader = BoxReader.of(self.fine, self.fine_settings, fallback, volume.spacing)
        rule, array = self.fine_settings.roi, volume.array
        rounds = 0 if rois.whole_body else rule.grow_rounds
        readings = read_boxes(reader, array, rois.boxes, volume.spacing, grow_mm=rule.grow_mm, grow_rounds=rounds)
        touching = [] if rois.whole_body else doubts.doubt_borders([(one.box, one.touched) for one in readings], array.shape)
        return readings, fallback.warnings + touching


def maps_of(readings: Sequence[BoxReading], output: str, shape: Triple, unit: float = 1 / FULL) -> list[BoxMap]:
    """Collect the maps of an output over all boxes of a volume; none where it was not asked for."""
    boxes, stacks = [one.box for one in readings], [one.maps[output] for one in readings if output in one.maps]
    return [BoxMap(shape, boxes, list(blocks), unit) for blocks in zip(*stacks, strict=True)]


def changed(options: OptionsT, **values: Any) -> OptionsT:
    """Copy options with these values in the place of theirs; None changes nothing."""
    return options.model_copy(update={key: value for key, value in values.items() if value is not None})


def paths_of(given: Path | str | Sequence[Path | str]) -> list[Path]:
    """List one path or several."""
    return [Path(path) for path in ([given] if isinstance(given, Path | str) else given)]
