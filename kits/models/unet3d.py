"""The coarse network: a light 3D U-Net (Cicek et al., arXiv 1606.06650) that finds where the kidneys are."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.errors import KitsError
from kits.models.layers import LEAK, build_norm, channels_last, check_in_plane


class UNet3d(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W).

    Level k has `widths[k]` channels, convolutions of size `kernels[k]` (z, y, x), and its first one strides by `strides[k]`. The
    first level strides too: nothing runs at full resolution but the head, a transposed convolution that predicts each voxel of
    a stride cell by itself.

    Any D works: the last slice is repeated up to the next multiple of the strides in z, and the repeats' logits dropped.
    H and W must be multiples of `in_plane_multiple`; KitsError names the next valid size otherwise.
    """

    def __init__(
        self,
        *,
        classes: int,
        widths: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]],
        norm: str,
    ) -> None:
        super().__init__()
        if not len(widths) == len(strides) == len(kernels) >= 1:
            raise KitsError("model unet3d: widths, strides and kernels differ in length; give each one entry per level")
        self.depth_multiple, multiple_y, multiple_x = (prod(stride[axis] for stride in strides) for axis in range(3))
        self.in_plane_multiple = max(multiple_y, multiple_x)
        levels = range(len(widths))
        inputs = [1, *widths[:-1]]
        once = (1, 1, 1)
        self.down = nn.ModuleList(
            nn.Sequential(
                conv_block(inputs[k], widths[k], kernel=kernels[k], stride=strides[k], norm=norm),
                conv_block(widths[k], widths[k], kernel=kernels[k], stride=once, norm=norm),
            )
            for k in levels
        )
        self.up = nn.ModuleList(upsampling(widths[k], widths[k - 1], strides[k]) for k in levels[1:])
        self.merge = nn.ModuleList(
            conv_block(2 * widths[k], widths[k], kernel=kernels[k], stride=once, norm=norm) for k in levels[:-1]
        )
        self.head = upsampling(widths[0], classes, strides[0])
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
        channels_last(self)

    def forward(self, volume: Tensor) -> Tensor:
        """Logits of every voxel of `volume`, (B, 1, D, H, W)."""
        check_in_plane(volume, self.in_plane_multiple)
        depth = volume.shape[2]
        features = functional.pad(volume, (0, 0, 0, 0, 0, -depth % self.depth_multiple), mode="replicate")
        features = features.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level in self.down:
            features = level(features)
            skips.append(features)
        for k in reversed(range(len(self.merge))):
            features = self.merge[k](torch.cat([skips[k], self.up[k](features)], dim=1))
        return self.head(features)[:, :, :depth]


def conv_block(in_channels: int, out_channels: int, *, kernel: Sequence[int], stride: Sequence[int], norm: str) -> nn.Sequential:
    """Convolution, normalization, leaky ReLU."""
    z, y, x = kernel
    convolution = nn.Conv3d(in_channels, out_channels, (z, y, x), as_triple(stride), padding=(z // 2, y // 2, x // 2))
    return nn.Sequential(convolution, build_norm(norm, out_channels), nn.LeakyReLU(LEAK, inplace=True))


def upsampling(in_channels: int, out_channels: int, stride: Sequence[int]) -> nn.ConvTranspose3d:
    """Transposed convolution whose kernel is its stride: the cells do not overlap."""
    return nn.ConvTranspose3d(in_channels, out_channels, as_triple(stride), as_triple(stride))


def as_triple(values: Sequence[int]) -> tuple[int, int, int]:
    """Three integers (z, y, x) as the tuple that torch wants."""
    z, y, x = values
    return z, y, x
