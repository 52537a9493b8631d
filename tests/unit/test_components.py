"""Regions of masks, lines of voxels included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kits.volume.components import connected


@settings(deadline=None)  # a busy machine is no failure
@given(
    shape=st.tuples(*[st.one_of(st.just(1), st.integers(1, 24))] * 3),
    seed=st.integers(0, 10**6),
    density=st.floats(0, 1),
    full=st.booleans(),
)
def test_regions_are_those_of_scipy(shape: tuple[int, int, int], seed: int, density: float, full: bool) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    expected, number = ndimage.label(mask, np.ones((3, 3, 3)) if full else None)
    found = connected(mask, 26 if full else 6)
    assert found.shape == shape
    assert found.max() == number
    # The same regions, whatever their numbers.
    assert len({*zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True)}) == len(np.unique(expected))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_line_with_gaps_is_counted(axis: int) -> None:
    line = np.array([True, False, True, False, True, False])
    shape = [1, 1, 1]
    shape[axis] = len(line)
    assert connected(line.reshape(shape)).ravel().tolist() == [1, 0, 2, 0, 3, 0]
