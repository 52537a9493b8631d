"""A plug-in for kits: an operator, found by its entry point, and a loss, named by `_target_`."""

import torch
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


class Focal(nn.Module):
    """Cross entropy with weight (1 - p) ** gamma (Lin et al., arXiv 1708.02002)."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, C, D, H, W) and label (B, D, H, W) -> a scalar."""
        ce = functional.cross_entropy(logits, label, reduction="none")
        return ((1 - torch.exp(-ce)) ** self.gamma * ce).mean()
