"""Strides and kernels from the spacing."""

from math import prod, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from kits.config.composing import compose
from kits.config.schema.model import anisotropic_levels
from kits.core.errors import KitsError
from kits.models import build_network
from tests.unit.test_models import unet

lengths = st.floats(0.2, 12)


def anisotropy(spacing):
    return max(spacing) / min(spacing)


def layers(**changes):
    """Strides, kernels and channels of each level of the default coarse network."""
    network = build_network({**compose("train", ["stage=coarse"])["model"], **changes}, pretrained=False)
    levels = [level[0][0] for level in network.down]
    return [(one.stride, one.kernel_size, one.out_channels) for one in levels]


def test_the_default_pools_thick_slices_late():
    plane, cube = (1, 3, 3), (3, 3, 3)
    first = [((1, 2, 2), plane, 8), ((1, 2, 2), plane, 16)]
    assert layers() == [*first, ((2, 2, 2), cube, 32), ((2, 2, 2), cube, 64), ((2, 2, 2), cube, 96)]
    assert layers(in_plane=None) == [first[0], ((1, 2, 2), cube, 16), *layers()[2:]]


def test_the_default_is_light():
    network = build_network(compose("train", ["stage=coarse"])["model"], pretrained=False)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 16, 256, 256))
    assert counter.get_total_flops() < 24.2e9 / 5  # of the network of width 16 and depth 4, 24.2 GFLOP


@given(z=lengths, pixel=lengths, depth=st.integers(1, 6), in_plane=st.integers(0, 8))
def test_levels_can_be_kept_in_plane(z, pixel, depth, in_plane):
    strides, kernels = anisotropic_levels([z, pixel, pixel], depth)
    flat = [[1, *kernel[1:]] if level < in_plane else kernel for level, kernel in enumerate(kernels)]
    assert anisotropic_levels([z, pixel, pixel], depth, in_plane) == (strides, flat)


@given(z=lengths, pixel=lengths, depth=st.integers(1, 6))
def test_pooling_never_takes_the_spacing_farther_from_isotropic(z, pixel, depth):
    spacing = [z, pixel, pixel]
    strides, kernels = anisotropic_levels(spacing, depth)
    assert len(strides) == len(kernels) == depth
    for stride, kernel in zip(strides, kernels, strict=True):
        assert set(stride) <= {1, 2}
        assert 2 in stride
        assert all(size == 3 or (size == 1 and step == 1) for size, step in zip(kernel, stride, strict=True))
        pooled = [length * step for length, step in zip(spacing, stride, strict=True)]
        assert anisotropy(pooled) <= max(anisotropy(spacing), sqrt(2)) * (1 + 1e-9)
        # Neither slices nor pixels that are more than twice as coarse are mixed.
        assert all(size == 3 or length > 2 * min(spacing) for size, length in zip(kernel, spacing, strict=True))
        spacing = pooled


@given(z=lengths, pixel=lengths, scale=st.sampled_from([0.25, 0.5, 2, 8]))
def test_the_choice_does_not_depend_on_the_unit(z, pixel, scale):
    assert anisotropic_levels([z, pixel, pixel], 5) == anisotropic_levels([scale * z, scale * pixel, scale * pixel], 5)


@given(z=lengths, pixel=lengths)
def test_enough_levels_reach_a_nearly_isotropic_spacing(z, pixel):
    strides, _ = anisotropic_levels([z, pixel, pixel], 7)
    z, pixel = (length * prod(stride[axis] for stride in strides) for axis, length in enumerate((z, pixel)))
    assert anisotropy([z, pixel]) <= sqrt(2) * (1 + 1e-9)


def test_width_and_depth_are_options():
    network = unet(widths=None, width=4, depth=3, strides=None, kernels=None, spacing=[1.5, 1.5, 1.5])
    assert [level[0][0].out_channels for level in network.down] == [4, 8, 16]
    assert network.depth_multiple == network.in_plane_multiple == 8


def test_what_is_missing_for_the_choice_is_named():
    with pytest.raises(KitsError, match=r"model\.width, model\.depth: give both, or the list model\.widths"):
        unet(widths=None, width=None)
    with pytest.raises(KitsError, match=r"model\.spacing: no value given; model\.strides=null is chosen from it"):
        unet(spacing=None, strides=None)
