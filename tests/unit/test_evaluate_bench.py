"""The evaluation bench: its pair of label maps, and on a small one MONAI's very numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kits.bench.scoring import bend, ellipsoids, make_truth, measure
from kits.config.composing import checked
from kits.metrics import score_case

SHAPE = (60, 96, 100)


def test_the_prediction_is_the_truth_bent_a_little() -> None:
    truth = ellipsoids(SHAPE, (0.5, 0.8, 0.8))
    assert set(np.unique(truth)) == {0, 1, 2}
    prediction = bend(truth, (0.5, 0.8, 0.8), 1.5, seed=0)
    scores = score_case(prediction, truth)
    assert 0.8 < scores["tumor"] < 0.999
    assert 0.8 < scores["kidney"] < 0.999
    np.testing.assert_array_equal(bend(truth, (0.5, 0.8, 0.8), 1.5, seed=0), prediction)
    np.testing.assert_array_equal(bend(truth, (0.5, 0.8, 0.8), 0.0, seed=0), truth)


def test_a_real_case_is_resampled_to_the_shape_and_keeps_its_extent(kits_tree: Path) -> None:
    labels, spacing = make_truth(str(kits_tree), "case_00000", (40, 64, 32))
    assert labels.shape == (40, 64, 32)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert spacing == pytest.approx((4.0 * 20 / 40, 1.5, 1.5 * 64 / 32))


@pytest.mark.slow  # importing MONAI takes a quarter of a minute
def test_figures_are_monais() -> None:
    options = checked("bench_evaluate", [f"shape={list(SHAPE)}".replace(" ", "")])
    measured = measure(options)
    assert measured["difference"] < options.bars["difference"].most
    assert measured["speed"] > 0
