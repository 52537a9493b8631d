"""The coarse network: a light 3D U-Net (Cicek et al., arXiv 1606.06650) that finds where the kidneys are."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.errors import KitsError
from kits.models.layers import LEAK, channels_last, check_in_plane, normalization


class UNet3d(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W).

    Level k has `widths[k]` channels and its first convolution strides by `strides[k]` (z, y, x), the first level's too: nothing is
    computed at full resolution but the head, a transposed convolution that predicts each voxel of a stride cell by itself.
    `kernels[k]` (z, y, x) is the size of level k's convolutions.

    Any D works: slices are repeated at the end up to the next multiple of the strides in z, and their logits dropped.
    H and W must be multiples of `in_plane_multiple`; KitsError names the next valid size otherwise.
    """

    def __init__(
        self,
        *,
        classes: int,
        widths: Sequence[int],
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        if not len(widths) == len(strides) == len(kernels) >= 1:
            raise KitsError(
                "model unet3d: widths, strides and kernels need one entry per level; give them the same length"
            )
        self.depth_multiple, multiple_y, multiple_x = (prod(stride[axis] for stride in strides) for axis in range(3))
        self.in_plane_multiple = max(multiple_y, multiple_x)

        inputs = [1, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(
                block(inputs[k], widths[k], kernels[k], strides[k]), block(widths[k], widths[k], kernels[k], (1, 1, 1))
            )
            for k in range(len(widths))
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(widths[k], widths[k - 1], tuple(strides[k]), tuple(strides[k]))
            for k in range(1, len(widths))
        )
        self.merge = nn.ModuleList(
            block(2 * widths[k], widths[k], kernels[k], (1, 1, 1)) for k in range(len(widths) - 1)
        )
        self.head = nn.ConvTranspose3d(widths[0], classes, tuple(strides[0]), tuple(strides[0]))
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


def block(in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]) -> nn.Sequential:
    """Convolution, group normalization, leaky ReLU."""
    padding = tuple(size // 2 for size in kernel)
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, tuple(kernel), tuple(stride), padding, bias=False),
        normalization(out_channels),
        nn.LeakyReLU(LEAK, inplace=True),
    )
