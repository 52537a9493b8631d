"""A timm backbone as a 2D encoder of CT slices. It stays two-dimensional: depth is folded into the batch."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kits.models.weights import create_features


class Encoder2d(nn.Module):
    """Slices (B D, 1, H, W) in [-1, 1] -> one feature map (B D, out_channels[k], H / reductions[k], W / reductions[k]) per scale.

    The gray slice is replicated to three channels and normalized as the backbone was in its own training.
    `freeze_statistics` keeps BatchNorm in evaluation mode, through `.train()` too: the running statistics of the tf_ models move
    by 1 % a step, so that a short training would be evaluated with statistics of neither the old nor the new weights.
    Scale and offset of BatchNorm stay trainable.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, backbone: str, weights: str | None, out_indices: Sequence[int], freeze_statistics: bool) -> None:
        super().__init__()
        self.features = create_features(backbone, weights, tuple(out_indices))
        info = cast(FeatureInfo, self.features.feature_info)
        self.out_channels: list[int] = info.channels()
        self.reductions: list[int] = info.reduction()
        drop_unused_blocks(self.features, info.module_name()[-1])
        self.freeze_statistics = freeze_statistics
        config = cast(dict[str, Any], self.features.pretrained_cfg)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self.train()

    def train(self, mode: bool = True) -> "Encoder2d":
        super().train(mode)
        if self.freeze_statistics:
            for module in self.features.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, slices: Tensor) -> list[Tensor]:
        """Feature maps of `slices`, finest first."""
        image = ((slices + 1) / 2 - self.mean) / self.std
        return list(self.features(image.contiguous(memory_format=torch.channels_last)))


def drop_unused_blocks(features: nn.Module, last: str) -> None:
    """Remove the blocks after `last` ("blocks.4"), the module that gives the coarsest scale.

    timm does so itself, but for the EfficientNet family: there they would cost time, and have parameters without a gradient.
    """
    name, _, index = last.partition(".")
    blocks = getattr(features, "blocks", None)
    if name == "blocks" and isinstance(blocks, nn.Sequential):
        features.blocks = blocks[: int(index) + 1]
