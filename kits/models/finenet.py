"""The fine network: pretrained 2D sub-networks with adaptation modules, fused into one 3D prediction."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from kits.config.schema.model import FineNetOptions
from kits.core.errors import KitsError
from kits.models.channels import InputMapping
from kits.models.encoder2d import Encoder2d
from kits.models.fusion import build_fusion
from kits.models.layers import channels_last, check_in_plane
from kits.models.subnetwork import SubNetwork


class FineNet(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W).

    Any D >= 1 works. H and W must be multiples of `in_plane_multiple`; KitsError names the nearest valid size otherwise.
    In evaluation a voxel's logits depend on `reach` slices before and after it, so that a window with so many more on each side
    is read as the whole volume would be; None where they may depend on all.

    Args:
        options: of conf/model/finenet.yaml, where each is explained.
        pretrained: false leaves the sources' weights out, for a network whose own weights follow.
    """

    def __init__(self, options: FineNetOptions, pretrained: bool) -> None:
        super().__init__()
        subnetworks = []
        for source in options.sources:
            own = partial(options.of, source)
            encoder = Encoder2d(
                backbone=source.backbone,
                weights=source.weights if pretrained else None,
                out_indices=own("out_indices"),
                freeze_statistics=options.freeze_statistics,
                freeze_stages=options.freeze_stages,
                slices_at_once=options.slices_at_once,
                checkpointing=options.checkpointing,
            )
            mapping = InputMapping(
                own("input"),
                window_hu=own("window_hu"),
                windows_hu=own("windows_hu"),
                data_window_hu=options.data_window_hu,
            )
            subnetworks.append(SubNetwork(encoder, mapping, own("plane"), options))
        self.in_plane_multiple, self.fixed_size = common_size([source.encoder for source in subnetworks])
        self.sources = nn.ModuleList(subnetworks)
        self.fusion = build_fusion(options)
        # The fusion's 3 x 3 x 3 sees one slice more; its group norm would have the mean of all.
        reaches = [source.reach for source in subnetworks if source.reach is not None]
        known = options.norm == "none" and options.fusion in ("concat", "gate", "mean")  # a plug-in's may see any number
        self.reach = max(reaches) + 1 if known and len(reaches) == len(subnetworks) else None
        self.phase = "all"
        channels_last(self)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the fused logits of every voxel of `volume`, (B, 1, D, H, W)."""
        features, pyramids = self.read(volume, heads=1 if self.fusion.takes_logits else 0)
        return self.fusion(volume, features, [logits for pyramid in pyramids for logits in pyramid])

    def all_logits(self, volume: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute the fused logits and each source's own, all (B, classes, D, H, W)."""
        features, pyramids = self.read(volume, heads=1)
        logits = [pyramid[0] for pyramid in pyramids]
        return self.fusion(volume, features, logits), logits

    def read(self, volume: Tensor, heads: int | None) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Compute each source's features, and the logits of so many of its heads."""
        check_in_plane(volume, self.in_plane_multiple, self.fixed_size)
        features, pyramids = zip(*(source(volume, heads) for source in self.sources), strict=True)
        return list(features), list(pyramids)

    def training_logits(self, volume: Tensor) -> tuple[Tensor | None, list[list[Tensor]]]:
        """Compute what the loss of the present phase takes: fused logits, and each source's pyramid.

        The phase `sources` has no fused logits, and the phase `fusion` none of the sources, which then get no gradient.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.phase != "fusion"):
            features, pyramids = self.read(volume, heads=None)
        if self.phase == "sources":
            return None, pyramids
        fused = self.fusion(volume, features, [pyramid[0] for pyramid in pyramids])
        return fused, [] if self.phase == "fusion" else pyramids

    def set_phase(self, phase: str) -> None:
        """Choose which parts learn, one of `kits.config.schema.training.PHASES`."""
        self.phase = phase
        self.train(self.training)

    def train(self, mode: bool = True) -> "FineNet":
        super().train(mode)
        # What does not learn must not move either: BatchNorm would go on with its statistics.
        if self.phase == "fusion":
            self.sources.eval()
        return self


def common_size(encoders: Sequence[Encoder2d]) -> tuple[int, bool]:
    """Find the common multiple that all encoders take as a side of an image, and whether it is fixed.

    Raises KitsError where a backbone takes one size only, and another does not take that.
    """
    multiple = math.lcm(*(encoder.multiple for encoder in encoders))
    fixed = sorted({encoder.fixed_size for encoder in encoders if encoder.fixed_size})
    if fixed and fixed != [multiple]:
        others = sorted({encoder.multiple for encoder in encoders if not encoder.fixed_size})
        takes = [f"{size} x {size} only" for size in fixed] + [f"multiples of {size}" for size in others]
        raise KitsError(f"model.sources: no image size suits all backbones ({', '.join(takes)}); take others together")
    return multiple, bool(fixed)
