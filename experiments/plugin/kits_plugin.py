"""A plug-in for kits: an operator, an encoder and a network, found by entry points, and a loss, named by `_target_`."""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional


class Median(nn.Module):
    """The median of a slice and its two neighbors, then 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        """Take and give features (B D, C, h, w) of volumes of `depth` slices."""
        volume = slices.unflatten(0, (-1, depth))
        padded = torch.cat([volume[:, :1], volume, volume[:, -1:]], dim=1)
        near = torch.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]])
        return self.mix(near.median(dim=0).values.flatten(0, 1))


class TwoScales(nn.Module):
    """A 2D encoder as timm takes it: `feature_info` names the modules whose outputs are the scales."""

    def __init__(self, in_chans: int = 3, width: int = 8, **unused: Any) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_chans, width, 3, stride=2, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.feature_info = [
            {"num_chs": width, "reduction": 2, "module": "first"},
            {"num_chs": 2 * width, "reduction": 4, "module": "second"},
        ]

    def forward(self, image: Tensor) -> Tensor:
        return self.second(self.first(image))


# timm's record of a model: mean and deviation of its images among others, ImageNet's unless it says so.
default_cfgs = generate_default_cfgs({"two_scales": {"classifier": None}})


@register_model
def two_scales(pretrained: bool = False, **options: Any) -> nn.Module:
    """Build the encoder, or what timm makes of it with features_only=True."""
    return build_model_with_cfg(TwoScales, "two_scales", pretrained, **options)


class Dilated(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W): convolutions that see ever farther."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, dilation in ((1, 1), (width, 2), (width, 4)):
            layers += [nn.Conv3d(channels, width, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv3d(width, classes, 1))

    def forward(self, volume: Tensor) -> Tensor:
        return self.layers(volume)


class Focal(nn.Module):
    """Cross entropy with weight (1 - p) ** gamma (Lin et al., arXiv 1708.02002)."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, C, D, H, W) and label (B, D, H, W) -> a scalar; C is 1 in the coarse stage, label then 0 or 1."""
        if logits.shape[1] == 1:  # a softmax with 0 for the background is a sigmoid
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        ce = functional.cross_entropy(logits, label, reduction="none")
        return ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()
