"""The dimension adaptation modules: identity at the start, and what sees which slice."""

import pytest
import torch
from torch.nn import functional

from kits.models.adaptation import OPERATORS, Adaptation, AxialCoronalSagittal, Conv3d, SliceConv, TemporalShift
from kits.models.layers import fold, unfold

DEPTH = 5


def slices(channels=6, batch=2, size=(7, 9), seed=0):
    return torch.randn(batch * DEPTH, channels, *size, generator=torch.Generator().manual_seed(seed))


def adaptation(operator, gate=False, norm="none"):
    torch.manual_seed(0)
    return Adaptation(6, 8, operator=operator, gate=gate, norm=norm)


def perturb(module):
    """Weights that no initialization gives: the zero of the last layer would hide the operator."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 3)
    return module


@pytest.mark.parametrize("batch", [1, 2])
def test_folding_is_undone_and_copies_nothing_in_channels_last(batch):
    volume = torch.randn(batch, 4, DEPTH, 3, 2).contiguous(memory_format=torch.channels_last_3d)
    folded = fold(volume)
    assert folded.shape == (batch * DEPTH, 4, 3, 2)
    assert torch.equal(folded[DEPTH - 1], volume[0, :, DEPTH - 1])
    assert folded.data_ptr() == volume.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(unfold(folded, DEPTH), volume)
    assert unfold(folded, DEPTH).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("operator", OPERATORS)
def test_at_initialization_the_module_is_its_per_slice_reduction(operator, gate, norm):
    module = adaptation(operator, gate, norm)
    x = slices()
    torch.testing.assert_close(module(x, DEPTH), module.reduce(x), rtol=0, atol=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_zero_layer_lets_the_operator_learn(operator):
    module = adaptation(operator)
    module(slices(), DEPTH).square().sum().backward()
    assert module.last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_slice_sees_its_neighbors_and_no_other_volume(operator, gate):
    module = perturb(adaptation(operator, gate))
    x = slices()
    changed = x.clone()
    changed[2] += 1  # slice 2 of the first volume
    difference = (module(changed, DEPTH) - module(x, DEPTH)).abs().amax(dim=(1, 2, 3))
    # The operator reaches one slice, the gate's pooled means one more.
    reach = (operator != "none") + gate
    assert [k for k in range(2 * DEPTH) if difference[k] > 1e-5] == list(range(2 - reach, 3 + reach))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_single_slice_is_enough(operator):
    assert perturb(adaptation(operator, gate=True))(slices()[:1], 1).shape == (1, 8, 7, 9)


def test_zconv_is_a_3_1_1_convolution():
    module = SliceConv(6)
    x = slices()
    weight = module.conv.weight.unsqueeze(3)  # (out, in, 3, 1) over (D, h w) -> (out, in, 3, 1, 1)
    expected = fold(functional.conv3d(unfold(x, DEPTH), weight, module.conv.bias, padding=(1, 0, 0)))
    torch.testing.assert_close(module(x, DEPTH), expected)


def test_temporal_shift_moves_an_eighth_of_the_channels_each_way():
    x = slices(channels=16, batch=1)
    shifted = TemporalShift(16)(x, DEPTH)
    assert torch.equal(shifted[1:, :2], x[:-1, :2])
    assert torch.equal(shifted[:-1, 2:4], x[1:, 2:4])
    assert torch.equal(shifted[:, 4:], x[:, 4:])
    assert not shifted[0, :2].any()
    assert not shifted[-1, 2:4].any()


def test_acs_applies_each_third_of_its_kernels_in_its_plane():
    module = AxialCoronalSagittal(6)
    impulse = torch.zeros(DEPTH, 6, 7, 9)
    impulse[2, :, 3, 4] = 1
    with torch.no_grad():
        response = unfold(module(impulse, DEPTH) - module.conv.bias[:, None, None], DEPTH)[0]
    extents = [tuple(int(n) for n in (nonzero.amax(0) - nonzero.amin(0) + 1)) for nonzero in map(torch.nonzero, response)]
    assert extents == [(1, 3, 3)] * 2 + [(3, 1, 3)] * 2 + [(3, 3, 1)] * 2


def test_conv3d_agrees_with_torch_on_the_volume():
    module = Conv3d(6)
    x = slices()
    torch.testing.assert_close(unfold(module(x, DEPTH), DEPTH), module.conv(unfold(x, DEPTH)))
