"""The segmenter that is measured: of given checkpoints, or of random weights and usual ROIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kits.config.schema import parse
from kits.config.schema.exported import Exported
from kits.config.schema.model import Model
from kits.core.errors import KitsError
from kits.inference.coarse import Rois
from kits.inference.segmenter import Segmenter
from kits.models import build_network
from kits.models.settings import FORMAT, settings_of
from kits.volume import Volume
from kits.volume.rois import Box


def segmenter_of(config: dict[str, Any]) -> Segmenter:
    """Load the segmenter on the CPU."""
    if (config["coarse"] is None) != (config["fine"] is None):
        raise KitsError("coarse, fine: give both checkpoints or neither")
    if config["coarse"] is not None:
        return Segmenter.load(config["coarse"], config["fine"], "cpu")
    torch.manual_seed(config["seed"])
    # What random networks say reaches every border, where a trained one's result seldom does.
    config["fine_stage"]["roi"]["grow_rounds"] = 0
    pairs = []
    for name in ("coarse", "fine"):
        stage = {**config[f"{name}_stage"], "data": config["data"], "kits_format": FORMAT}
        model: Model = parse(Model, stage["model"])
        network = build_network(model, pretrained=False).eval()
        pairs.append((network, settings_of(Path(name), stage, model, network)))
    return UsualRois(pairs, config["rois"])


class Instant(nn.Module):
    """A network at no cost worth speaking of: above 120 HU in the usual window is class 1."""

    def __init__(self, classes: int, multiple: int) -> None:
        super().__init__()
        self.classes, self.in_plane_multiple = classes, multiple

    def forward(self, volume: Tensor) -> Tensor:
        """Turn (1, 1, D, H, W) into (1, classes, D, H, W)."""
        logits = volume.new_zeros(1, self.classes, *volume.shape[2:])
        logits[:, min(1, self.classes - 1)] = volume[:, 0] - 0.1
        return logits


def without_networks(segmenter: Segmenter) -> Segmenter:
    """Return the same segmenter, its networks replaced by `Instant`."""
    fine = Instant(len(segmenter.classes), int(segmenter.fine.networks[0].in_plane_multiple))  # type: ignore[attr-defined]
    segmenter.coarse = replace(segmenter.coarse, networks=[Instant(1, 1)])
    segmenter.fine = replace(segmenter.fine, networks=[fine])
    return segmenter


class UsualRois(Segmenter):
    """A segmenter whose coarse stage runs, but whose ROIs have given sizes, whatever its weights say."""

    def __init__(self, pairs: Sequence[tuple[nn.Module, Exported]], rois_mm: Sequence[Sequence[float]]) -> None:
        super().__init__(pairs[:1], pairs[1:], torch.device("cpu"))
        self.rois_mm = rois_mm

    def find_rois(self, volume: Volume) -> Rois:
        found = super().find_rois(volume)
        margin = self.coarse_settings.roi.margin_mm
        boxes = [
            box_about((0.5, 0.5, (k + 1) / (len(self.rois_mm) + 1)), size, volume).grow_mm(
                margin, volume.spacing, volume.array.shape
            )
            for k, size in enumerate(self.rois_mm)
        ]
        return replace(found, boxes=boxes, whole_body=False)


def box_about(place: Sequence[float], size_mm: Sequence[float], volume: Volume) -> Box:
    """Make a box of this size (z, y, x) in mm about a place in shares of the volume, cut at its faces."""
    corners = []
    for share, size, step, n in zip(place, size_mm, volume.spacing, volume.array.shape, strict=True):
        half = min(size / step, n) / 2
        corners.append((max(0, round(share * n - half)), min(n, round(share * n + half))))
    (z0, z1), (y0, y1), (x0, x1) = corners
    return Box((z0, y0, x0), (z1, y1, x1))
