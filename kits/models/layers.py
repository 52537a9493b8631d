"""Small pieces that the networks share.

Two-dimensional layers see slices folded into the batch. In the channels-last memory format, which every network here keeps,
(B, C, D, H, W) and (B D, C, H, W) are the same bytes, so that folding and unfolding copy nothing.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.core.errors import KitsError

LEAK = 0.01


def fold(volume: Tensor) -> Tensor:
    """Fold (B, C, D, H, W) into (B D, C, H, W): every slice an image of its own."""
    # (B, D, C, H, W) first: flattening (B, C) with D behind it would mix channels of one slice with those of the next.
    return volume.transpose(1, 2).flatten(0, 1)


def unfold(slices: Tensor, depth: int) -> Tensor:
    """Unfold (B D, C, H, W) into (B, C, D, H, W), the way back from `fold`."""
    return slices.unflatten(0, (-1, depth)).transpose(1, 2)


def build_norm(name: str, channels: int) -> nn.Module:
    """Build the normalization `group`, 8 channels to a group where that divides, or `none`."""
    # Batches of one or two patches are small for batch norm.
    return nn.Identity() if name == "none" else nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


def conv_block(in_channels: int, out_channels: int, *, kernel: int, norm: str) -> nn.Sequential:
    """Build an in-plane convolution of folded slices, normalized per slice, and a leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
        build_norm(norm, out_channels),
        nn.LeakyReLU(LEAK, inplace=True),
    )


def upsample(slices: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B D, C, h, w) in-plane, bilinearly, to `size` (H, W)."""
    # align_corners=False lets the edges of both grids meet, so that a cell stays over the pixels that it stands for; True would
    # let the corner pixels' centers meet, and stretch the map.
    return functional.interpolate(slices, size=tuple(size), mode="bilinear", align_corners=False)


class PaddedConv3d(nn.Conv3d):
    """torch's convolution, whose gradient of two slices can be trusted.

    On a CPU in bfloat16 (torch 2.14 and 2.15) the weights' gradient of an unstrided 3 x 3 x 3 or 3 x 1 x 1 convolution of two
    slices reads memory that nobody wrote. A third slice of the zeros that padding adds anyway changes nothing else.
    """

    def forward(self, volume: Tensor) -> Tensor:
        if self.training and volume.shape[2] == 2 and self.stride[0] == 1:
            return super().forward(functional.pad(volume, (0, 0, 0, 0, 0, 1)))[:, :, :2]
        return super().forward(volume)


def conv_block3d(
    in_channels: int, out_channels: int, *, norm: str, kernel: Sequence[int] = (3, 3, 3), stride: Sequence[int] = (1, 1, 1)
) -> nn.Sequential:
    """Build a 3D convolution of a kernel (z, y, x), normalized, and a leaky ReLU."""
    (z, y, x), (along, down, across) = kernel, stride
    convolution = PaddedConv3d(in_channels, out_channels, (z, y, x), (along, down, across), (z // 2, y // 2, x // 2))
    return nn.Sequential(convolution, build_norm(norm, out_channels), nn.LeakyReLU(LEAK, inplace=True))


def pointwise(convolution: nn.Conv3d, volume: Tensor) -> Tensor:
    """Compute a 1 x 1 x 1 convolution as a matrix product, which copies nothing on a CPU."""
    return functional.linear(volume.movedim(1, -1), convolution.weight.flatten(1), convolution.bias).movedim(-1, 1)


def check_in_plane(volume: Tensor, multiple: int, fixed: bool = False) -> None:
    """Refuse H and W of (B, C, D, H, W) that are no multiples of `multiple`, or not it if `fixed`.

    Raises KitsError. It names the nearest valid size, and the next larger one where the nearest is smaller.
    """
    size = (volume.shape[-2], volume.shape[-1])
    if fixed and size != (multiple, multiple):
        raise KitsError(
            f"in-plane size {size[0]} x {size[1]}: a backbone takes {multiple} x {multiple} only, the nearest valid size;"
            " give patches of it, or another backbone"
        )
    if size[0] % multiple or size[1] % multiple:
        nearest = tuple(max(1, (2 * n + multiple) // (2 * multiple)) * multiple for n in size)
        larger = tuple(math.ceil(n / multiple) * multiple for n in size)
        text = f"the nearest valid size is {nearest[0]} x {nearest[1]}"
        if larger != nearest:
            text += f", the next larger {larger[0]} x {larger[1]}"
        raise KitsError(f"in-plane size {size[0]} x {size[1]} is not a multiple of {multiple}; {text}")


def channels_last(module: nn.Module) -> None:
    """Store 4-D and 5-D weights in the memory format of the activations: about twice the speed on a CPU."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
