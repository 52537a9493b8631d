"""Strides and kernels from the spacing."""

from math import prod, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from kits.config.composing import compose
from kits.errors import KitsError
from kits.models import build_network
from kits.pooling import anisotropic_levels
from tests.unit.test_models import unet

lengths = st.floats(0.2, 12)


def anisotropy(spacing):
    return max(spacing) / min(spacing)


def test_the_default_pools_thick_slices_late():
    network = build_network(compose("train", ["stage=coarse"])["model"], pretrained=False)
    levels = [level[0][0] for level in network.down]
    assert [tuple(one.stride) for one in levels] == [(1, 4, 4), (2, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert [tuple(one.kernel_size) for one in levels] == [(1, 7, 7), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert network.down[0][1][0].kernel_size == network.merge[0][0].kernel_size == (1, 3, 3)
    assert [one.out_channels for one in levels] == [16, 32, 64, 96]


@pytest.mark.parametrize("older", [{"stem": None}, {}])
def test_without_a_stem_the_network_is_the_one_of_older_checkpoints(older):
    model = compose("train", ["stage=coarse"])["model"]
    network = build_network({key: value for key, value in model.items() if key != "stem"} | older, pretrained=False)
    levels = [level[0][0] for level in network.down]
    assert [tuple(one.stride) for one in levels] == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert [tuple(one.kernel_size) for one in levels] == [(1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]


def test_the_default_is_light():
    network = build_network(compose("train", ["stage=coarse"])["model"], pretrained=False)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 16, 256, 256))
    assert counter.get_total_flops() < 24.2e9 / 6  # of the network without a stem, 24.2 GFLOP


def test_each_pixel_reaches_the_first_level():
    network = unet()
    image = torch.zeros(1, 1, 4, 32, 32, requires_grad=True)
    network.down[0][0][0](image + 1).square().sum().backward()
    assert (image.grad != 0).all()


@given(z=lengths, pixel=lengths, depth=st.integers(1, 6), stem=st.integers(1, 8))
def test_the_levels_after_a_stem_are_those_of_its_cells(z, pixel, depth, stem):
    strides, kernels = anisotropic_levels([z, pixel, pixel], depth, stem)
    cells = anisotropic_levels([z, stem * pixel, stem * pixel], depth)
    assert (strides, kernels) == ([[1, stem, stem], *cells[0][:-1]], [[1, 3, 3], *cells[1][1:]])


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
    network = unet(widths=None, width=4, depth=3, strides=None, kernels=None, spacing=[1.5, 1.5, 1.5], stem=None)
    assert [level[0][0].out_channels for level in network.down] == [4, 8, 16]
    assert network.depth_multiple == network.in_plane_multiple == 8


def test_what_is_missing_for_the_choice_is_named():
    with pytest.raises(KitsError, match=r"model\.width, model\.depth: give both, or the list model\.widths"):
        unet(widths=None, width=None)
    with pytest.raises(KitsError, match=r"model\.spacing: no value given; model\.strides=null is chosen from it"):
        unet(spacing=None, strides=None)
