"""A light decoder that upsamples in-plane only: slices are 0.5 to 5 mm apart, pixels 0.44 to 1.04 mm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kits.models.layers import conv_block, upsample


class Decoder2d(nn.Module):
    """A decoder of features (B D, widths[k], h_k, w_k), finest first, into the same shapes."""

    def __init__(self, widths: Sequence[int], *, norm: str) -> None:
        super().__init__()
        self.merge = nn.ModuleList(
            conv_block(widths[k] + widths[k + 1], widths[k], kernel=3, norm=norm) for k in range(len(widths) - 1)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        decoded = [features[-1]]
        for k in reversed(range(len(self.merge))):
            decoded.append(self.merge[k](torch.cat([features[k], upsample(decoded[-1], features[k].shape[-2:])], dim=1)))
        return decoded[::-1]
