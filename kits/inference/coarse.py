"""The coarse stage: from a volume to its ROIs by the coarse grid, the networks and the paper's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kits.config.schema.exported import ExportedCoarse
from kits.config.schema.stage import CoarseInference, CoarseRoi
from kits.inference.devices import Fallback
from kits.inference.members import Members
from kits.inference.sliding import Maps, sliding, to_input
from kits.volume import CoarseGrid, Spacing, Volume, coarse_planes, doubts, plane_grid, to_coarse
from kits.volume.hu import BODY_HU, PAD_HU
from kits.volume.rois import Box, body_box, find_rois


@dataclass(frozen=True)
class Rois:
    """Boxes in voxels of the volume, with margin, or with `whole_body` what stands in for them."""

    boxes: list[Box]
    warnings: list[str]
    whole_body: bool = False


def rois_of(mask: np.ndarray, grid: CoarseGrid, native: Spacing, rule: CoarseRoi, hu: np.ndarray | None = None) -> list[Box]:
    """Find boxes on the coarse grid by a stage's rule; the grid's padding does not count.

    Args:
        mask: bool on the grid.
        native: (z, y, x) mm of the volume.
        hu: the scan on the grid, for `rank: kidney`.
    """
    inside = np.zeros_like(mask)
    inside[grid.inside] = mask[grid.inside]
    ranked_by = hu if rule.rank == "kidney" else None
    size = rule.model_dump(include={"count", "min_voxels", "min_ml"})
    return find_rois(inside, spacing=grid.spacing(native), hu=ranked_by, **size)


def find_rois_in(volume: Volume, members: Members, settings: ExportedCoarse, device: torch.device) -> Rois:
    """Find the ROIs of a volume in HU; where no component is large enough, take its whole body."""
    data, rule, inference = settings.data, settings.roi, settings.inference
    shape = volume.array.shape
    planes = coarse_planes(len(volume.array), volume.spacing[0], data.coarse_z_mm)
    grid = plane_grid(shape, data.coarse_size, planes)
    for network in members.networks:
        network.to(device)  # type: ignore[attr-defined]  # an earlier case may have moved it
    fallback = Fallback(members.networks, device, inference.window, "coarse")
    coarse = to_coarse(volume.array, grid, PAD_HU)
    mask = coarse_mask(members, coarse, window_hu=data.window_hu, inference=inference, fallback=fallback)
    native = [Box(*grid.to_native(box.start, box.stop)) for box in rois_of(mask, grid, volume.spacing, rule, coarse)]
    del coarse
    if native:
        boxes = [box.grow_mm(rule.margin_mm, volume.spacing, shape) for box in native]
        return Rois(boxes, fallback.warnings + doubts.doubt_boxes(boxes, volume.spacing, rule.margin_mm))
    limit = f"{rule.min_voxels} voxels" if rule.min_ml is None else f"{rule.min_ml} mL"
    warning = (
        f"the coarse stage found no region of more than {limit} on its grid"
        f" (its mask has {int(mask.sum())}); the fine stage looked at the whole body"
    )
    return Rois([body_box(volume.array, BODY_HU)], [*fallback.warnings, warning], whole_body=True)


@torch.inference_mode()
def coarse_mask(
    members: Members,
    coarse_hu: np.ndarray,
    *,
    window_hu: Sequence[float],
    inference: CoarseInference,
    fallback: Fallback,
) -> np.ndarray:
    """Mark where the coarse network, or the mean of several, sees a kidney: bool (D, H, W).

    Args:
        fallback: what to do without memory, and where to leave a warning of it.
    """

    def attempt(device: torch.device, window: int) -> np.ndarray:
        def predict(start: int, stop: int) -> Maps:
            return members(to_input(coarse_hu[start:stop], window_hu, device))

        mask = np.empty(coarse_hu.shape, dtype=bool)
        for start, maps in sliding(predict, len(coarse_hu), window, inference.overlap):
            # One class, kidney and tumor together (model.classes=1), so that a kidney full of tumor is found too.
            found = maps["classes"][0] > inference.threshold
            mask[start : start + len(found)] = found.cpu().numpy()
        return mask

    return fallback.run(attempt)
