"""The whole two-stage method as one plain object: load two checkpoints, segment volumes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kits.checkpoint import load_network
from kits.errors import KitsError
from kits.inference import BoxReader, coarse_mask, segment_boxes
from kits.intensity import PAD_HU
from kits.labels import KITS19_CLASSES, regions_of
from kits.metrics import volumes_ml
from kits.postprocess import clean
from kits.roi import Box, body_box, rois_of
from kits.volume import Volume, plane_grid, to_coarse

BODY_THRESHOLD_HU = -300


@dataclass(frozen=True)
class Segmentation:
    """What was found in one volume.

    Attributes:
        labels: uint8 (z, y, x): 0 background, 1 kidney, 2 tumor and, from a checkpoint that knows it, 3 cyst.
        boxes: the ROIs in voxels of the volume, largest first, as the fine stage read them in the end.
        warnings: what a reader of the result should know.
        seconds: wall time of each step.
        volumes_ml: of each region in mL: kidney (its tumors and cysts included), tumor and, from such a checkpoint, cyst.
    """

    labels: np.ndarray
    boxes: list[Box]
    warnings: list[str]
    seconds: dict[str, float]
    volumes_ml: dict[str, float]


class Segmenter:
    """A coarse and a fine network with the settings that they were trained with; `classes` names the labels that it writes."""

    def __init__(
        self,
        coarse: nn.Module,
        coarse_config: dict[str, Any],
        fine: nn.Module,
        fine_config: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.coarse, self.coarse_config = coarse, coarse_config
        self.fine, self.fine_config = fine, fine_config
        self.device = device
        # Checkpoints that are older than KiTS21 and KiTS23 in this project name no classes.
        self.classes: list[str] = list(fine_config["data"].get("classes", KITS19_CLASSES))

    @classmethod
    def load(cls, coarse: Path | str, fine: Path | str, device: str = "auto") -> Segmenter:
        """Load both checkpoints onto a device (`auto`: the GPU where there is one).

        Raises:
            KitsError: a file is no checkpoint of that stage, or the device cannot be used.
        """
        target = pick_device(device)
        coarse_network, coarse_config = load_network(Path(coarse), "coarse", target)
        fine_network, fine_config = load_network(Path(fine), "fine", target)
        return cls(coarse_network, coarse_config, fine_network, fine_config, target)

    def segment(self, volume: Volume) -> Segmentation:
        """Find the kidneys coarsely, then outline kidney and tumor inside the ROIs at original resolution.

        Args:
            volume: array (z, y, x) in HU.
        """
        began = time.perf_counter()
        boxes, warnings = self.find_boxes(volume)
        found = time.perf_counter()
        reader = BoxReader.of(self.fine, self.fine_config, self.device)
        rule = self.fine_config["roi"]
        labels, boxes = segment_boxes(
            reader, volume.array, boxes, volume.spacing, grow_mm=rule["grow_mm"], grow_rounds=rule["grow_rounds"]
        )
        outlined = time.perf_counter()
        labels = clean(labels, volume.spacing, **self.fine_config["postprocess"])
        cleaned = time.perf_counter()
        volumes = volumes_ml(labels, volume.spacing, regions_of(self.classes))
        if not labels.any():
            warnings.append("nothing found: no kidney and no tumor voxel in the result")
        seconds = {"coarse": found - began, "fine": outlined - found, "postprocess": cleaned - outlined}
        return Segmentation(labels, boxes, warnings, seconds, volumes)

    def find_boxes(self, volume: Volume) -> tuple[list[Box], list[str]]:
        """The ROIs of the coarse mask in voxels of the volume, with margin, and warnings.

        Where no component is large enough the whole body is taken, with a warning that says so.
        """
        return find_boxes(self.coarse, self.coarse_config, volume, self.device)


def find_boxes(network: nn.Module, config: dict[str, Any], volume: Volume, device: torch.device) -> tuple[list[Box], list[str]]:
    """The ROIs that a coarse network finds, in voxels of the volume, with margin, and warnings (see `Segmenter.find_boxes`).

    Args:
        config: the configuration that the network was trained with.
        volume: array (z, y, x) in HU.
    """
    data, rule = config["data"], config["roi"]
    grid = plane_grid(volume.array.shape, data["coarse_size"])
    mask = coarse_mask(
        network,
        to_coarse(volume.array, grid, PAD_HU),
        window_hu=data["window_hu"],
        inference=config["inference"],
        device=device,
    )
    native = [Box(*grid.to_native(box.start, box.stop)) for box in rois_of(mask, grid, volume.spacing, rule)]
    if native:
        return [box.grow_mm(rule["margin_mm"], volume.spacing, volume.array.shape) for box in native], []
    limit = f"{rule['min_voxels']} voxels" if rule["min_ml"] is None else f"{rule['min_ml']} mL"
    warning = (
        f"the coarse stage found no region of more than {limit} on its grid"
        f" (its mask has {int(mask.sum())}); the fine stage looked at the whole body"
    )
    return [body_box(volume.array, BODY_THRESHOLD_HU)], [warning]


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` is the first GPU, or the CPU.

    Raises:
        KitsError: torch does not know the name, or cannot use that device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise KitsError(f"device={name}: cannot be used here ({reason}); take auto, cpu or cuda") from error
    return device
