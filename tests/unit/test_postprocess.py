"""Each clean-up step removes or fills what it says and leaves the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.volume.postprocess import clean, drop_far_tumors, drop_specks, fill_enclosed, largest_regions

SPACING = (3.0, 1.0, 1.0)


def kidney() -> np.ndarray:
    labels = np.zeros((12, 40, 40), dtype=np.uint8)
    labels[3:8, 10:20, 10:20] = 1
    return labels


@pytest.mark.parametrize(("gap", "stays"), [(0, True), (4, True), (5, False), (15, False)])
def test_a_tumor_stays_within_the_distance(gap: int, stays: bool) -> None:
    labels = kidney()
    labels[4:6, 12:15, 20 + gap : 23 + gap] = 2  # centers are gap + 1 mm apart
    result = drop_far_tumors(labels, SPACING, 5.0)
    assert (result == 2).any() == stays
    assert ((result == 1) == (labels == 1)).all()


@pytest.mark.parametrize(("distance", "stays"), [(5.9, False), (6.0, True)])
def test_the_distance_is_in_millimeters_along_slices_too(distance: float, stays: bool) -> None:
    labels = kidney()
    labels[9, 12:15, 12:15] = 2  # two slices of 3 mm above the kidney's last
    assert (drop_far_tumors(labels, SPACING, distance) == 2).any() == stays


def test_only_the_far_tumor_goes() -> None:
    labels = kidney()
    labels[4:6, 12:15, 20:26] = 2
    near = labels.copy()
    labels[0, 35:39, 35:39] = 2
    before = labels.copy()
    np.testing.assert_array_equal(drop_far_tumors(labels, SPACING, 5.0), near)
    np.testing.assert_array_equal(labels, before)  # pure


def test_without_a_kidney_all_tumors_stay() -> None:
    labels = np.where(kidney() == 1, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(drop_far_tumors(labels, SPACING, 5.0), labels)


def test_specks_go_and_small_tumors_in_a_kidney_become_kidney() -> None:
    labels = kidney()
    expected = labels.copy()
    labels[0, 0:3, 0:3] = 1  # 27 cubic mm
    labels[11, 30:33, 30:33] = 2
    labels[5, 14:16, 14:16] = 2  # 12 cubic mm inside the kidney
    np.testing.assert_array_equal(drop_specks(labels, SPACING, 0.03), expected)
    kept = drop_specks(labels, SPACING, 0.027)
    assert kept[0, 1, 1] == 1
    assert kept[11, 31, 31] == 2
    assert kept[5, 14, 14] == 1


@pytest.mark.parametrize(("ring", "filled"), [(1, 1), (2, 2)])
def test_an_enclosed_hole_takes_the_label_around_it(ring: int, filled: int) -> None:
    labels = kidney()
    labels[4:7, 13:17, 13:17] = ring
    labels[5, 14:16, 14:16] = 0
    result = fill_enclosed(labels)
    assert (result[5, 14:16, 14:16] == filled).all()
    assert (result != labels).sum() == 4


def test_a_pit_that_opens_outside_is_no_hole() -> None:
    labels = kidney()
    labels[5:, 14, 14] = 0  # through the last slice
    np.testing.assert_array_equal(fill_enclosed(labels), labels)


def test_a_hole_in_a_kidney_cut_by_the_volumes_edge_is_filled() -> None:
    labels = np.ones((3, 5, 5), dtype=np.uint8)
    labels[1, 2, 2] = 0
    assert fill_enclosed(labels).all()


def test_clean_runs_the_steps_that_are_switched_on() -> None:
    labels = kidney()
    labels[5, 14, 14] = 0
    labels[0, 35:39, 35:39] = 2
    off = clean(labels, SPACING, components=None, tumor_distance_mm=None, min_ml=None, fill_holes=False)
    np.testing.assert_array_equal(off, labels)
    np.testing.assert_array_equal(
        clean(labels, SPACING, components=None, tumor_distance_mm=5, min_ml=0.01, fill_holes=True), kidney()
    )


@pytest.mark.parametrize("value", [0, 1])
def test_uniform_maps_come_back_unchanged(value: int) -> None:
    labels = np.full((4, 5, 6), value, dtype=np.uint8)
    result = clean(labels, SPACING, components=None, tumor_distance_mm=5, min_ml=0.01, fill_holes=True)
    np.testing.assert_array_equal(result, labels)
    assert result.dtype == np.uint8


def test_only_the_largest_regions_stay_whatever_their_labels() -> None:
    labels = np.zeros((4, 9, 30), dtype=np.uint8)
    labels[1:3, 1:8, 1:6], labels[1:3, 1:8, 6:9] = 1, 2  # a kidney with its tumor is one region
    labels[1:3, 1:8, 12:16], labels[1:3, 1:5, 20:24] = 1, 2
    two = clean(labels, SPACING, components=2, tumor_distance_mm=None, min_ml=None, fill_holes=False)
    assert not two[..., 18:].any()
    np.testing.assert_array_equal(two[..., :18], labels[..., :18])
    assert largest_regions(labels > 0, 1)[..., :9].sum() == largest_regions(labels > 0, 1).sum() > 0
    np.testing.assert_array_equal(largest_regions(labels > 0, 9), labels > 0)
    assert not largest_regions(np.zeros((3, 3, 3), dtype=bool), 2).any()


def test_a_tumor_at_a_cyst_stays_and_small_cysts_become_kidney() -> None:
    labels = kidney()
    labels[3:8, 10:20, 20:30] = 3  # a cyst at the kidney, and a tumor behind it
    labels[4:6, 12:15, 30:33] = 2
    np.testing.assert_array_equal(drop_far_tumors(labels, SPACING, 5.0), labels)
    expected = labels.copy()
    labels[5, 12:14, 12:14] = 3  # 12 cubic mm inside the kidney
    np.testing.assert_array_equal(drop_specks(labels, SPACING, 0.03), expected)
    labels[0, 35:38, 35:38] = 3  # 27 cubic mm on its own
    np.testing.assert_array_equal(drop_specks(labels, SPACING, 0.03), expected)


@pytest.mark.parametrize(("ring", "filled"), [((3, 3), 3), ((3, 1), 3), ((1, 3), 1)])
def test_a_hole_between_kidney_and_cyst_takes_the_commoner(ring: tuple[int, int], filled: int) -> None:
    labels = kidney()
    labels[4:7, 13:18, 13:18], labels[4:7, 13, 13:18] = ring
    labels[5, 14:17, 14:17] = 0
    assert (fill_enclosed(labels)[5, 14:17, 14:17] == filled).all()


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_clean_up_with_cysts_scores_by_kits19s_rule_as_without_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((8, 24, 24), dtype=np.uint8)
    for _ in range(12):
        z, y, x = (rng.integers(0, size - 1, 2) for size in labels.shape)
        labels[min(z) : max(z) + 1, min(y) : max(y) + 1, min(x) : max(x) + 1] = rng.integers(0, 4)
    options = {"components": 2, "tumor_distance_mm": 3.0, "min_ml": 0.02, "fill_holes": True}

    def without_cysts(array: np.ndarray) -> np.ndarray:
        return np.where(array == 3, 1, array).astype(np.uint8)

    cleaned = clean(labels, SPACING, **options)
    np.testing.assert_array_equal(without_cysts(cleaned), clean(without_cysts(labels), SPACING, **options))
