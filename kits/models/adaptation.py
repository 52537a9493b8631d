"""Dimension adaptation modules: 2D per-slice features become features that see adjacent slices.

The paper leaves the module open; this is ours. Operators take (B D, C, h, w) and the `depth` D, and give the same shape; all but
`none` see one slice before and one after, which `kits.models.subnetwork` counts on.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits.config import plug_ins
from kits.models.layers import LEAK, PaddedConv3d, build_norm, conv_block, fold, unfold
from kits.models.own_network import tried_on


class SliceConv(nn.Module):
    """3 x 1 x 1 convolution across slices."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Seen as a 2D convolution of the image (D, h w), it takes a CPU about half the time of the 3D one.
        self.conv = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        height, width = slices.shape[-2:]
        # (B, C, D, h w)
        columns = unfold(slices, depth).flatten(3)
        return fold(self.conv(columns).unflatten(3, (height, width)))


class InPlane(nn.Module):
    """1 x 3 x 3, within each slice only: the 2D ablation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        return self.conv(slices)


class P3d(nn.Module):
    """1 x 3 x 3, then 3 x 1 x 1 (Qiu et al., arXiv 1711.10305, P3D-A)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_plane = InPlane(channels)
        self.across = SliceConv(channels)

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        return self.across(functional.leaky_relu(self.in_plane(slices, depth), LEAK, inplace=True), depth)


class Conv3d(nn.Module):
    """3 x 3 x 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = PaddedConv3d(channels, channels, 3, padding=1)

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        return fold(self.conv(unfold(slices, depth)))


class TemporalShift(nn.Module):
    """A shift of an eighth of the channels along z each way (Lin et al., arXiv 1811.08383)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.part = max(1, channels // 8)

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        volume = unfold(slices, depth)
        before, after, rest = volume.split([self.part, self.part, volume.shape[1] - 2 * self.part], dim=1)
        # Zeros beyond the volume's ends, as a convolution pads.
        before = functional.pad(before[:, :, :-1], (0, 0, 0, 0, 1, 0))
        after = functional.pad(after[:, :, 1:], (0, 0, 0, 0, 0, 1))
        shifted = torch.cat([before, after, rest], dim=1)
        return fold(shifted.contiguous(memory_format=torch.channels_last_3d))


class AxialCoronalSagittal(nn.Module):
    """A 2D kernel in three planes, a third of the channels each (Yang et al., arXiv 1911.10477)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        third = channels // 3
        self.parts = [channels - 2 * third, third, third]

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        volume = unfold(slices, depth)
        axial, coronal, sagittal = self.conv.weight.split(self.parts)
        planes = [
            functional.conv3d(volume, axial.unsqueeze(2), padding=(0, 1, 1)),
            functional.conv3d(volume, coronal.unsqueeze(3), padding=(1, 0, 1)),
            functional.conv3d(volume, sagittal.unsqueeze(4), padding=(1, 1, 0)),
        ]
        bias = self.conv.bias
        assert bias is not None
        return fold(torch.cat(planes, dim=1)) + bias[:, None, None]


OPERATORS: dict[str, Callable[[int], nn.Module]] = {
    "p3d": P3d,
    "conv3d": Conv3d,
    "zconv": SliceConv,
    "tsm": TemporalShift,
    "acs": AxialCoronalSagittal,
    "none": InPlane,
}


def build_operator(name: str, channels: int) -> nn.Module:
    """Build an operator of ours or of a plug-in.

    Raises:
        KitsError: a plug-in's cannot be built, or gives another shape.
    """
    if name in OPERATORS:
        return OPERATORS[name](channels)
    with plug_ins.plug_in(plug_ins.OPERATORS, name) as operator:
        slices = torch.zeros(2, channels, 4, 4)
        return tried_on(operator(channels), slices, 2, shape=slices.shape)


class SliceGate(nn.Module):
    """Squeeze-and-excitation: channels weighted by the means of the slice and its neighbors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.excite = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        # (B D, C, h, w) -> (B, C, D): a 1D convolution along the slices of each volume, never across two volumes of a batch.
        means = slices.mean(dim=(2, 3)).unflatten(0, (-1, depth)).transpose(1, 2)
        weights = torch.sigmoid(self.excite(means)).transpose(1, 2).flatten(0, 1)
        return slices * weights[:, :, None, None]


class Adaptation(nn.Module):
    """The adaptation of one scale, (B D, in_channels, h, w) -> (B D, width, h, w), across slices.

    It sees adjacent slices of the `depth` in each volume. 1 x 1 x 1 reduction, inter-slice `operator`, and a residual whose last
    layer starts at zero: at initialization the module is the reduction alone, a per-slice 2D network. `gate` weights the residual
    by squeeze-and-excitation over slices.
    """

    def __init__(self, in_channels: int, width: int, *, operator: str, gate: bool, norm: str) -> None:
        super().__init__()
        self.reduce = conv_block(in_channels, width, kernel=1, norm=norm)
        self.operator = build_operator(operator, width)
        self.activate = nn.Sequential(build_norm(norm, width), nn.LeakyReLU(LEAK))
        self.gate = SliceGate(width) if gate else None
        self.last = nn.Conv2d(width, width, 1)
        # At zero the reduced 2D features pass unchanged at first. Of the residual only this layer learns in the first step, for
        # its zeros stop the gradient; the operator learns from the second one on.
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, slices: Tensor, depth: int) -> Tensor:
        reduced = self.reduce(slices)
        residual = self.activate(self.operator(reduced, depth))
        if self.gate is not None:
            residual = self.gate(residual, depth)
        return reduced + self.last(residual)
