"""The scores, and what they say about emptiness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.core.errors import KitsError
from kits.core.labels import CLASSES, KITS19_CLASSES, REGIONS, regions_of
from kits.metrics import confusion, dice, score_case, scores_from_confusion, volumes_ml


def volume(**boxes: tuple[int, int]) -> np.ndarray:
    """Labels (4, 5, 60): columns a to b of each named class."""
    labels = np.zeros((4, 5, 60), dtype=np.uint8)
    for name, (a, b) in boxes.items():
        labels[..., a:b] = CLASSES.index(name)
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
    prediction, truth = ((rng.random((5, 6, 7)) < density) * rng.integers(1, 4, (5, 6, 7), dtype=np.uint8) for _ in range(2))
    regions = regions_of(CLASSES)
    scores = score_case(prediction, truth, regions)
    for region, (a, b) in {
        "kidney": (prediction > 0, truth > 0),
        "tumor": (prediction == 2, truth == 2),
        "cyst": (prediction == 3, truth == 3),
    }.items():
        expected = 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0
        assert scores[region] == pytest.approx(expected)
        assert dice(a, b) == pytest.approx(expected)
    parts = confusion(prediction[:2], truth[:2]) + confusion(prediction[2:], truth[2:])
    assert scores_from_confusion(parts, regions) == pytest.approx(scores)
    assert scores["composite"] == pytest.approx((scores["kidney"] + scores["tumor"]) / 2)


def test_the_table_has_truth_in_rows() -> None:
    table = confusion(volume(tumor=(0, 3)), volume(kidney=(0, 4)))
    assert table[1, 2] == 3 * 20
    assert table[1, 0] == 1 * 20
    assert table.sum() == 4 * 5 * 60


CYSTIC = volume(kidney=(0, 20), tumor=(20, 30), cyst=(30, 40))


@pytest.mark.parametrize(
    ("prediction", "truth", "kidney", "tumor", "cyst"),
    [
        (CYSTIC, CYSTIC, 1, 1, 1),
        (volume(kidney=(0, 40), tumor=(20, 30)), CYSTIC, 1, 1, 0),  # a prediction of three classes
        (CYSTIC, volume(kidney=(0, 40), tumor=(20, 30)), 1, 1, 0),  # a truth of three classes
        (volume(kidney=(0, 20), cyst=(20, 40)), CYSTIC, 1, 0, 2 * 10 / (20 + 10)),  # a tumor taken for a cyst
        (volume(kidney=(0, 20), tumor=(20, 40)), CYSTIC, 1, 2 * 10 / (20 + 10), 0),  # a cyst taken for a tumor
        (volume(kidney=(0, 20), tumor=(20, 30)), CYSTIC, 2 * 30 / (30 + 40), 1, 0),  # a cyst not found
        (volume(cyst=(30, 40)), CYSTIC, 2 * 10 / (10 + 40), 0, 1),  # the cyst alone
        (volume(kidney=(0, 9), cyst=(50, 55)), volume(kidney=(0, 9)), 2 * 9 / (14 + 9), 1, 0),  # a false cyst
    ],
)
def test_a_cyst_is_kidney_and_never_tumor(
    prediction: np.ndarray, truth: np.ndarray, kidney: float, tumor: float, cyst: float
) -> None:
    expected = {"kidney": kidney, "tumor": tumor, "composite": (kidney + tumor) / 2}
    assert score_case(prediction, truth) == pytest.approx(expected)
    assert score_case(prediction, truth, regions_of(CLASSES)) == pytest.approx({**expected, "cyst": cyst})


def test_kits19_classes_have_kits19_regions() -> None:
    assert regions_of(KITS19_CLASSES) == REGIONS
    assert list(regions_of(CLASSES)) == ["kidney", "tumor", "cyst"]


def test_the_volume_of_a_kidney_holds_its_tumors_and_cysts() -> None:
    column = 4 * 5 * 3.0 * 0.5 * 2.0 / 1000  # mL
    found = volumes_ml(CYSTIC, (3.0, 0.5, 2.0), regions_of(CLASSES))
    assert found == pytest.approx({"kidney": 40 * column, "tumor": 10 * column, "cyst": 10 * column})
    assert volumes_ml(volume(), (1.0, 1.0, 1.0), REGIONS) == {"kidney": 0, "tumor": 0}
