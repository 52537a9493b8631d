"""What a source sees of the volume: channels from neighbors and HU windows."""

import numpy as np
import pytest
import torch

from kits.models.channels import InputMapping, narrow, relative_window
from kits.models.layers import fold, unfold
from kits.volume.hu import normalise

DATA = [-100, 300]
THREE = [[-100, 300], [-50, 150], [50, 250]]


def mapping(name, window_hu=None, windows_hu=THREE):
    return InputMapping(name, window_hu=window_hu, windows_hu=windows_hu, data_window_hu=DATA)


def volume(depth=4):
    return torch.rand(2, 1, depth, 6, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("window", [[-100, 300], [-50, 150], [0, 1], [200, 300]])
def test_a_window_of_the_normalized_volume_is_that_window_of_the_hu(window):
    hu = np.linspace(-500, 600, 45, dtype=np.float32).reshape(1, 1, 3, 3, 5)
    seen = narrow(torch.from_numpy(normalise(hu, DATA)), relative_window(window, DATA))
    np.testing.assert_allclose(seen.numpy(), normalise(hu, window), atol=2e-5)


def test_replicate_is_the_slices_themselves():
    assert torch.equal(mapping("replicate")(volume()), fold(volume()))


def test_a_window_of_one_source_is_stretched():
    seen = mapping("replicate", [0, 100])(volume())
    torch.testing.assert_close(seen, fold(((volume() * 200 + 100 - 50) / 50).clamp(-1, 1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("depth", [1, 4])
def test_neighbors_are_the_channels_and_borders_repeat(depth):
    x = volume(depth)
    seen = unfold(mapping("neighbors")(x), depth)
    assert seen.shape == (2, 3, depth, 6, 5)
    for z in range(depth):
        for channel, other in enumerate((max(0, z - 1), z, min(depth - 1, z + 1))):
            assert torch.equal(seen[:, channel, z], x[:, 0, other])


def test_three_windows_are_the_channels():
    seen = unfold(mapping("windows")(volume()), 4)
    for channel, window in enumerate(THREE):
        torch.testing.assert_close(seen[:, channel], mapping("replicate", window)(volume()).view(2, 4, 6, 5))
