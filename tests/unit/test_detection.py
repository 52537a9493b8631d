"""Tumors one by one, and the intervals of what is counted over cases."""

from __future__ import annotations

import numpy as np
import pytest

from kits.metrics.detection import Component, components, count_matched, diameter_of, size_classes
from kits.metrics.summary import Draws

SPACING = (2.0, 1.0, 0.5)


def boxes(*spans: tuple[int, int]) -> np.ndarray:
    """Bool (10, 20, 100): columns a to b of the same rows and slices."""
    mask = np.zeros((10, 20, 100), bool)
    for a, b in spans:
        mask[2:8, 5:15, a:b] = True
    return mask


def flags(mask: np.ndarray, other: np.ndarray, overlap: float = 0.25, least_mm: float = 0) -> list[bool]:
    """`matched` of each component, the largest first."""
    return [one.matched for one in components(mask, other, SPACING, overlap=overlap, least_mm=least_mm)]


def test_sizes_are_those_of_the_truths_voxels() -> None:
    (one,) = components(boxes((10, 30)), boxes((10, 15)), SPACING, overlap=0.25, least_mm=0)
    assert one.volume_ml == pytest.approx(6 * 10 * 20 * 1.0 / 1000)
    assert one.overlap == 0.25
    assert one.diameter_mm == pytest.approx((6 * 1200 / np.pi) ** (1 / 3))
    assert diameter_of(4 / 3 * np.pi * 10**3 / 1000) == pytest.approx(20)


def test_the_covered_share_decides() -> None:
    truth = boxes((10, 30), (50, 60))
    assert flags(truth, boxes((10, 15))) == [True, False]  # exactly the share that is asked for
    assert flags(truth, boxes((10, 14))) == [False, False]
    assert flags(truth, boxes((29, 51)), overlap=0) == [True, True]  # any voxel
    assert flags(truth, boxes(), overlap=0) == [False, False]


def test_two_tumors_under_one_prediction_are_both_found_and_one_in_two_pieces_once() -> None:
    two, one = boxes((10, 30), (40, 55)), boxes((10, 55))
    assert flags(two, one) == [True, True]
    assert flags(one, two) == [True]


def test_a_prediction_that_covers_everything_finds_all_and_is_wrong() -> None:
    truth, everything = boxes((10, 20)), np.ones((10, 20, 100), bool)
    assert flags(truth, everything) == [True]
    assert flags(everything, truth) == [False]


def test_voxels_that_touch_at_a_corner_are_one_tumor_and_specks_do_not_count() -> None:
    mask = boxes()
    mask[2, 5, 10] = mask[3, 6, 11] = True
    assert len(components(mask, mask, SPACING, overlap=0.1, least_mm=0)) == 1
    speck = boxes((10, 30))
    speck[0, 0, 99] = True
    assert len(components(speck, speck, SPACING, overlap=0.1, least_mm=5)) == 1
    assert len(components(speck, speck, SPACING, overlap=0.1, least_mm=0)) == 2


def test_every_tumor_is_of_one_size_class() -> None:
    classes = size_classes([20, 40, 70])
    assert list(classes) == ["<20 mm", "20-40 mm", "40-70 mm", ">=70 mm"]
    found = [Component(np.pi / 6 * d**3 / 1000, 1.0, d > 30) for d in (5.0, 19.9, 20.1, 40.1, 69.9, 200.0)]
    assert [count_matched(found, limits) for limits in classes.values()] == [(0, 2), (0, 1), (2, 2), (1, 1)]
    assert count_matched(found) == (3, 6)
    assert size_classes([]) == {}


def test_the_interval_of_a_mean_is_about_two_standard_errors_either_way() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    low, high = Draws(200, 4000, 0.95, seed=1).interval(values)
    error = values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert Draws(200, 4000, 0.95, seed=1).interval(values) == (low, high)
    assert Draws(200, 4000, 0.95, seed=2).interval(values) != (low, high)


def test_an_interval_needs_two_cases_that_count() -> None:
    draws = Draws(3, 100, 0.9, seed=0)
    assert draws.interval([1.0, float("nan"), float("nan")]) is None
    assert draws.interval([1.0, 1.0, float("nan")]) == pytest.approx((1, 1))
    assert Draws(1, 100, 0.9, seed=0).interval([1.0]) is None


def test_the_interval_of_a_share_weighs_cases_by_their_tumors() -> None:
    # One case of nine missed tumors beside nine cases of one found tumor: of all 18 a half is found, not nine tenths.
    low, high = Draws(10, 2000, 0.95, seed=0).interval([0] + [1] * 9, [9] + [1] * 9)
    assert low < 0.3
    assert high == 1
    assert Draws(4, 100, 0.95, seed=0).interval([0, 0, 1, 1], [0, 0, 1, 2]) is not None
