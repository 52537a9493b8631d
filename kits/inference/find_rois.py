"""From a volume to its ROIs: coarse grid, coarse networks, the paper's rule, or the whole body where that finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kits.inference import doubts
from kits.inference.coarse import coarse_mask
from kits.inference.fallback import Fallback
from kits.inference.members import Members
from kits.volume import Volume, coarse_planes, plane_grid, to_coarse
from kits.volume.intensity import PAD_HU
from kits.volume.rois import Box, body_box, rois_of

BODY_THRESHOLD_HU = -300


@dataclass(frozen=True)
class Rois:
    """Boxes in voxels of the volume, with margin; `whole_body` where they stand in for ROIs that were not found."""

    boxes: list[Box]
    warnings: list[str]
    whole_body: bool = False


def find_boxes(
    network: nn.Module, config: Mapping[str, Any], volume: Volume, device: torch.device, precision: str = "32"
) -> tuple[list[Box], list[str]]:
    """The ROIs that a coarse network finds, in voxels of the volume, with margin, and warnings (see `Segmenter.find_boxes`).

    Args:
        config: the configuration that the network was trained with.
        volume: array (z, y, x) in HU.
    """
    found = find_rois_in(volume, Members([network], precision, device.type), config, device)
    return found.boxes, found.warnings


def find_rois_in(volume: Volume, members: Members, config: Mapping[str, Any], device: torch.device) -> Rois:
    """What the coarse networks find in a volume of HU; where no component is large enough, its whole body."""
    data, rule, inference = config["data"], config["roi"], config["inference"]
    shape = volume.array.shape
    planes = coarse_planes(len(volume.array), volume.spacing[0], data["coarse_z_mm"])
    grid = plane_grid(shape, data["coarse_size"], planes)
    for network in members.networks:
        network.to(device)  # type: ignore[attr-defined]  # an earlier case may have moved it
    fallback = Fallback(members.networks, device, inference["window"], "coarse")
    coarse = to_coarse(volume.array, grid, PAD_HU)
    mask = coarse_mask(members, coarse, window_hu=data["window_hu"], inference=inference, device=device, fallback=fallback)
    del coarse
    native = [Box(*grid.to_native(box.start, box.stop)) for box in rois_of(mask, grid, volume.spacing, rule)]
    if native:
        boxes = [box.grow_mm(rule["margin_mm"], volume.spacing, shape) for box in native]
        return Rois(boxes, fallback.warnings + doubts.of_boxes(boxes, volume.spacing, rule["margin_mm"]))
    limit = f"{rule['min_voxels']} voxels" if rule["min_ml"] is None else f"{rule['min_ml']} mL"
    warning = (
        f"the coarse stage found no region of more than {limit} on its grid"
        f" (its mask has {int(mask.sum())}); the fine stage looked at the whole body"
    )
    return Rois([body_box(volume.array, BODY_THRESHOLD_HU)], [*fallback.warnings, warning], whole_body=True)
