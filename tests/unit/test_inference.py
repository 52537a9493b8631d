"""Sliding windows and pasting: nothing is shifted, lost or invented."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from kits.inference import coarse_mask, fit_to_multiple, segment_boxes, sliding_logits, window_starts
from kits.roi import Box


@pytest.mark.parametrize(
    ("depth", "window", "overlap"), [(5, 8, 0.5), (8, 8, 0.5), (9, 8, 0.5), (100, 24, 0.25), (1059, 48, 0.25)]
)
def test_windows_cover_every_slice_and_overlap(depth: int, window: int, overlap: float) -> None:
    starts = window_starts(depth, window, overlap)
    seen = np.zeros(depth, int)
    for start in starts:
        assert start + min(window, depth) <= depth
        seen[start : start + window] += 1
    assert seen.min() >= 1
    for first, second in itertools.pairwise(starts):
        assert first + window - second >= int(window * overlap)


def test_overlapping_windows_of_a_voxelwise_network_give_its_own_answer() -> None:
    hu = np.random.default_rng(0).integers(-100, 300, (21, 4, 4)).astype(np.int16)
    logits = sliding_logits(lambda x: torch.cat([x, -x], 1), hu, window_hu=(-100, 300), window=8, overlap=0.5, device="cpu")
    assert logits.shape == (2, 21, 4, 4)
    np.testing.assert_allclose(logits[0].numpy(), (hu - 100) / 200, atol=1e-6)


def test_the_coarse_threshold_is_a_probability() -> None:
    hu = np.array([[[-100, 90, 110, 300]]], dtype=np.int16)
    settings = {"window": 4, "overlap": 0.0, "threshold": 0.5}
    mask = coarse_mask(lambda x: x, hu, window_hu=(-100, 300), inference=settings, device="cpu")
    np.testing.assert_array_equal(mask, hu > 100)
    mask = coarse_mask(lambda x: x, hu, window_hu=(-100, 300), inference={**settings, "threshold": 0.9}, device="cpu")
    assert not mask.any()


def three_classes(x: Tensor) -> Tensor:
    """Background below 0 (100 HU), kidney to 0.5 (200 HU), tumor above."""
    return torch.cat([-x, torch.where(x > 0, 0.5 - (x - 0.25).abs(), -1.0), torch.where(x > 0.5, 2.0, -2.0)], 1)


def test_boxes_are_segmented_where_they_are_and_nothing_outside() -> None:
    hu = np.full((6, 20, 20), -100, np.int16)
    hu[1:4, 3:9, 2:7], hu[2, 5:7, 3:5] = 150, 290
    hu[0, 15, 15] = 290  # outside every box
    boxes = [Box((1, 3, 2), (4, 9, 7)), Box((1, 0, 12), (3, 5, 20))]
    labels = segment_boxes(
        three_classes,
        hu,
        boxes,
        window_hu=(-100, 300),
        inference={"window": 4, "overlap": 0.25},
        multiple=8,
        pad_hu=-1024,
        device="cpu",
    )
    expected = np.zeros_like(hu, dtype=np.uint8)
    expected[1:4, 3:9, 2:7], expected[2, 5:7, 3:5] = 1, 2
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("multiple", [1, 8, 16, 32])
def test_a_box_grows_about_its_middle_to_what_the_network_takes(multiple: int) -> None:
    box = fit_to_multiple(Box((2, 3, 4), (9, 30, 61)), multiple)
    assert box.start[0] == 2
    assert box.stop[0] == 9
    assert all(size % multiple == 0 for size in box.shape[1:])
    assert box.start[1] <= 3
    assert box.stop[1] >= 30
    assert box.shape[1] - 27 < multiple
