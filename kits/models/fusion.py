"""The fusion decision module: from several sources' features and logits to one prediction.

Every fusion takes the volume (B, 1, D, H, W), per source its features (B D, C, h, w), whose sizes may differ, and its logits
(B, classes, D, H, W), and gives logits (B, classes, D, H, W).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kits.config.plug_ins import FUSIONS, plug_in
from kits.config.schema.model import FineNetOptions
from kits.models.layers import conv_block, conv_block3d, fold, pointwise, unfold, upsample
from kits.models.own_network import tried_on


def concatenate(features: Sequence[Tensor]) -> Tensor:
    """Concatenate the features of all sources in one tensor, at the resolution of the finest."""
    size = max((one.shape[-2:] for one in features), key=math.prod)
    return torch.cat([one if one.shape[-2:] == size else upsample(one, size) for one in features], dim=1)


class FullResolution(nn.Module):
    """A join of context with the volume's own edges, which a stem sees and the encoders lose."""

    # Whether it takes the sources' own logits, which cost a head and an upsampling each.
    takes_logits = True
    stem: nn.Sequential
    mix: nn.Sequential
    head: nn.Conv3d

    def join(self, volume: Tensor, context: Tensor) -> Tensor:
        """Join volume (B, 1, D, H, W) and context (B D, C, H, W) into logits (B, classes, D, H, W)."""
        # Of one input channel torch cannot see the memory format, and would go on in the other one.
        edges = self.stem(fold(volume)).contiguous(memory_format=torch.channels_last)
        mixed = torch.cat([context, edges], dim=1)
        return pointwise(self.head, self.mix(unfold(mixed, volume.shape[2])))


class ConcatFusion(FullResolution):
    """Features concatenated, 1 x 1 x 1, 3 x 3 x 3, logits.

    The 1 x 1 x 1 runs before the upsampling, with which it commutes, at a quarter of the cost. A stem of `stem_width` channels
    adds what the encoders' strides lose: the edges of the volume at full resolution. It takes no logits.
    """

    takes_logits = False

    def __init__(self, widths: Sequence[int], *, classes: int, width: int, stem_width: int, norm: str) -> None:
        super().__init__()
        self.stem = conv_block(1, stem_width, kernel=3, norm=norm)
        self.reduce = nn.Conv2d(sum(widths), width, 1)
        self.mix = conv_block3d(width + stem_width, width, norm=norm)
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, volume: Tensor, features: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
        context = upsample(self.reduce(concatenate(features)), volume.shape[-2:])
        return self.join(volume, context)


class GateFusion(nn.Module):
    """A voxel-wise softmax over the sources weights their logits."""

    def __init__(self, widths: Sequence[int], *, width: int, norm: str) -> None:
        super().__init__()
        self.reduce = conv_block(sum(widths), width, kernel=1, norm=norm)
        self.score = nn.Conv2d(width, len(widths), 3, padding=1)

    def forward(self, volume: Tensor, features: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
        scores = upsample(self.score(self.reduce(concatenate(features))), volume.shape[-2:])
        weights = unfold(scores, volume.shape[2]).softmax(dim=1)
        return (weights.unsqueeze(2) * torch.stack(list(logits), dim=1)).sum(dim=1)


class MeanFusion(nn.Module):
    """The logarithm of the sources' mean probability as logits: a softmax gives the mean back."""

    def forward(self, volume: Tensor, features: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
        # In logarithms and float32: a probability of float16 that underflows to 0 would have no logarithm.
        stacked = torch.stack([source.float().log_softmax(dim=1) for source in logits])
        return stacked.logsumexp(dim=0) - math.log(len(logits))


class Sharpened(FullResolution):
    """The logits of another fusion, corrected at full resolution by a stem that sees the volume.

    The stem has `stem_width` channels. Logits of sources that are weighted have edges as blurred as the encoders' strides make
    them. At first it corrects nothing.
    """

    def __init__(self, fusion: nn.Module, *, classes: int, width: int, stem_width: int, norm: str) -> None:
        super().__init__()
        self.fusion = fusion
        self.stem = conv_block(1, stem_width, kernel=3, norm=norm)
        self.mix = conv_block3d(classes + stem_width, width, norm=norm)
        self.head = nn.Conv3d(width, classes, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, volume: Tensor, features: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
        blurred = self.fusion(volume, features, logits)
        return blurred + self.join(volume, fold(blurred))


def build_fusion(options: FineNetOptions) -> nn.Module:
    """Build a fusion of ours or of a plug-in.

    Raises:
        KitsError: a plug-in's cannot be built, or gives another shape.
    """
    name, widths = options.fusion, [options.widths[0]] * len(options.sources)
    shared = options.model_dump(include={"classes", "width", "stem_width", "norm"})
    if name == "concat":
        return ConcatFusion(widths, **shared)
    if name not in ("gate", "mean"):
        with plug_in(FUSIONS, name) as plugged:
            fusion: Any = plugged(widths, **shared)
            fusion.takes_logits = getattr(fusion, "takes_logits", True)
            features, logits = [torch.zeros(2, one, 4, 4) for one in widths], torch.zeros(1, options.classes, 2, 8, 8)
            return tried_on(fusion, torch.zeros(1, 1, 2, 8, 8), features, [logits] * len(widths), shape=logits.shape)
    return Sharpened(MeanFusion() if name == "mean" else GateFusion(widths, width=options.width, norm=options.norm), **shared)
