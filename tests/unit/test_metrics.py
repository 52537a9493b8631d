"""The scores, and what they say about emptiness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.errors import KitsError
from kits.metrics import confusion, dice, score_case, scores_from_confusion, summarize


def volume(**boxes: tuple[int, int]) -> np.ndarray:
    """Labels (4, 5, 60): columns a to b of each named class."""
    labels = np.zeros((4, 5, 60), dtype=np.uint8)
    for name, (a, b) in boxes.items():
        labels[..., a:b] = {"kidney": 1, "tumor": 2}[name]
    return labels


def test_kidney_counts_the_tumor_too() -> None:
    truth = volume(kidney=(0, 20), tumor=(20, 30))
    missed_class = volume(kidney=(0, 30))  # every voxel found, the tumor called kidney
    assert score_case(missed_class, truth) == {"kidney": 1.0, "tumor": 0.0, "composite": 0.5}


def test_dice_by_hand() -> None:
    truth, prediction = volume(kidney=(0, 20), tumor=(20, 30)), volume(kidney=(10, 25), tumor=(25, 40))
    scores = score_case(prediction, truth)
    assert scores["kidney"] == pytest.approx(2 * 20 / (30 + 30))
    assert scores["tumor"] == pytest.approx(2 * 5 / (10 + 15))
    assert scores["composite"] == pytest.approx((scores["kidney"] + scores["tumor"]) / 2)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (volume(), volume(), 1.0),
        (volume(tumor=(0, 5)), volume(kidney=(9, 20)), 0.0),
        (volume(kidney=(9, 20)), volume(tumor=(0, 5)), 0.0),
        (volume(kidney=(9, 20)), volume(kidney=(9, 20)), 1.0),
    ],
    ids=["both empty", "truth empty", "prediction empty", "no tumor in either"],
)
def test_empty_tumors_score_by_the_stated_policy(prediction: np.ndarray, truth: np.ndarray, expected: float) -> None:
    assert score_case(prediction, truth)["tumor"] == expected
    assert dice(prediction == 2, truth == 2) == expected


def test_volumes_of_different_size_are_refused() -> None:
    with pytest.raises(KitsError, match="predict in the scan's own grid"):
        score_case(volume()[1:], volume())


@settings(deadline=None)  # a busy machine is no failure
@given(seed=st.integers(0, 10**6), density=st.floats(0, 0.2))
def test_scores_equal_the_definition_and_add_up_over_slabs(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    prediction, truth = ((rng.random((5, 6, 7)) < density) * rng.integers(1, 3, (5, 6, 7), dtype=np.uint8) for _ in range(2))
    scores = score_case(prediction, truth)
    for region, low in (("kidney", 0), ("tumor", 1)):
        a, b = prediction > low, truth > low
        expected = 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0
        assert scores[region] == pytest.approx(expected)
        assert dice(a, b) == pytest.approx(expected)
    parts = confusion(prediction[:2], truth[:2]) + confusion(prediction[2:], truth[2:])
    assert scores_from_confusion(parts) == pytest.approx(scores)


def test_the_table_has_truth_in_rows() -> None:
    table = confusion(volume(tumor=(0, 3)), volume(kidney=(0, 4)))
    assert table[1, 2] == 3 * 20
    assert table[1, 0] == 1 * 20
    assert table.sum() == 4 * 5 * 60


def test_the_summary_is_the_mean_over_cases() -> None:
    rows = [{"kidney": 1.0, "tumor": 0.0, "composite": 0.5}, {"kidney": 0.5, "tumor": 0.5, "composite": 0.5}]
    assert summarize(rows) == {"kidney": 0.75, "tumor": 0.25, "composite": 0.5}
    with pytest.raises(KitsError, match="no cases"):
        summarize([])
