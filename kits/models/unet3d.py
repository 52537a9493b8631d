"""The coarse network: a light 3D U-Net (Cicek et al., arXiv 1606.06650) that finds the kidneys."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.config.schema.model import Unet3dOptions
from kits.models.layers import LEAK, channels_last, check_in_plane, conv_block3d


class UNet3d(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W).

    Level k has `widths[k]` channels, convolutions of size `kernels[k]` (z, y, x), and its first one strides by `strides[k]`. The
    first level strides too: nothing runs at full resolution but the head, a transposed convolution that predicts each voxel of
    a stride cell by itself. Where `widths` is None there are `depth` levels of `width`, twice that, up to `widest` times it.
    Where `strides` or `kernels` is None they are chosen from `spacing` (z, y, x) and `in_plane`, see `Unet3dOptions.pooling`.
    `deep_supervision` gives so many of the coarser levels a head too, for the loss.

    Any D works: the last slice is repeated up to the next multiple of the strides in z, and the repeats' logits dropped.
    H and W must be multiples of `in_plane_multiple`; KitsError names the next valid size otherwise.
    """

    def __init__(self, options: Unet3dOptions, pretrained: bool = False) -> None:  # there are no weights for it
        super().__init__()
        # A light network stays light when it grows deeper.
        widths = options.widths or [(options.width or 0) * min(2**k, options.widest) for k in range(options.levels)]
        norm, (strides, kernels) = options.norm, options.pooling
        self.depth_multiple, self.in_plane_multiple = prod(stride[0] for stride in strides), options.in_plane_multiple
        levels = range(len(widths))
        inputs = [1, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(
                conv_block3d(inputs[k], widths[k], kernel=kernels[k], stride=strides[k], norm=norm),
                conv_block3d(widths[k], widths[k], kernel=kernels[k], norm=norm),
            )
            for k in levels
        )
        self.up = nn.ModuleList(upsampling(widths[k], widths[k - 1], strides[k]) for k in levels[1:])
        self.merge = nn.ModuleList(conv_block3d(2 * widths[k], widths[k], kernel=kernels[k], norm=norm) for k in levels[:-1])
        self.head = upsampling(widths[0], options.classes, strides[0])
        self.coarser_heads = nn.ModuleList(
            nn.Conv3d(widths[k], options.classes, 1) for k in levels[1 : options.deep_supervision + 1]
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
        channels_last(self)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits of every voxel of `volume`, (B, 1, D, H, W)."""
        return self.head(self.decoded(volume)[0])[:, :, : volume.shape[2]]

    def training_logits(self, volume: Tensor) -> list[Tensor]:
        """Compute the logits of every voxel, then (B, classes, D, h, w) of coarser levels with a head."""
        depth = volume.shape[2]
        decoded = self.decoded(volume)
        pyramid = [self.head(decoded[0])[:, :, :depth]]
        for head, features in zip(self.coarser_heads, decoded[1 : len(self.coarser_heads) + 1], strict=True):
            logits = head(features)
            # Repeated along z, so that the slices that were filled up can be dropped; in-plane the loss takes coarser labels.
            filled = depth + -depth % self.depth_multiple
            pyramid.append(logits.repeat_interleave(filled // logits.shape[2], dim=2)[:, :, :depth])
        return pyramid

    def decoded(self, volume: Tensor) -> list[Tensor]:
        """Compute the decoder's features of each level, finest first, D filled up to `depth_multiple`."""
        check_in_plane(volume, self.in_plane_multiple)
        # Repeats of the last slice, not zeros: 0 is 100 HU in [-1, 1] of the usual window, which would be tissue.
        features = functional.pad(volume, (0, 0, 0, 0, 0, -volume.shape[2] % self.depth_multiple), mode="replicate")
        features = features.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level in self.down:
            features = level(features)
            skips.append(features)
        found = [features]
        for k in reversed(range(len(self.merge))):
            found.append(self.merge[k](torch.cat([skips[k], self.up[k](found[-1])], dim=1)))
        return found[::-1]


def upsampling(in_channels: int, out_channels: int, stride: Sequence[int]) -> nn.ConvTranspose3d:
    """Build a transposed convolution whose kernel is its stride: the cells do not overlap."""
    z, y, x = stride
    return nn.ConvTranspose3d(in_channels, out_channels, (z, y, x), (z, y, x))
