"""Labels that stand for something else are found by looking at all cases, and none of KiTS19's is doubted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.data.classes import Labelled, judge_classes, measure_classes
from kits.data.validate import ERROR, WARNING, Finding, errors
from kits.io import read_labels
from tests.conftest import ellipsoid, kidney_pair, prepare, write_case
from tests.unit.test_preparation import data_config

SPACING = (4.0, 1.5, 1.5)


def patient(seed: int, tumor: str = "small") -> np.ndarray:
    """Two kidneys of about 200 mL: 1; a tumor on one of them: 2, small or in the place of the whole kidney."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 128, 192), np.uint8)
    sides = rng.permutation([50, 140])
    for place in sides:
        labels[ellipsoid(labels.shape, (20, 64 + rng.uniform(-3, 3), place), (14, 20, 18))] = 1
    if tumor == "whole":
        half = labels[:, :, : labels.shape[2] // 2] if sides[0] == 50 else labels[:, :, labels.shape[2] // 2 :]
        half[half == 1] = 2
    elif tumor == "small":
        labels[ellipsoid(labels.shape, (20, 50, sides[0]), (4, 9, 9))] = 2
    return labels


def left_right(labels: np.ndarray) -> np.ndarray:
    sides = np.ones_like(labels)
    sides[:, :, labels.shape[2] // 2 :] = 2
    return np.where(labels > 0, sides, 0).astype(np.uint8)


def left_right_tumor(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 2, 3, left_right(labels)).astype(np.uint8)


def exchanged(labels: np.ndarray) -> np.ndarray:
    return np.array([0, 2, 1, 3], np.uint8)[labels]


def as_two_and_three(labels: np.ndarray) -> np.ndarray:
    return np.array([0, 2, 3], np.uint8)[left_right(labels)]


def judged(maps: list[np.ndarray], spacing: tuple[float, float, float] = SPACING) -> list[Finding]:
    return judge_classes([measure_classes(f"case_{n:05d}", Path("x.nii.gz"), labels, spacing) for n, labels in enumerate(maps)])


WRONG: list[Callable[[np.ndarray], np.ndarray]] = [left_right, left_right_tumor, exchanged, as_two_and_three]


@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("count", [2, 5])
def test_labels_that_mean_something_else_are_an_error(change: Callable[[np.ndarray], np.ndarray], count: int) -> None:
    found = errors(judged([change(patient(seed)) for seed in range(count)]))
    assert len(found) == count
    assert f"that has no kidney (label 1), as in {count} of {count} cases" in found[0].finding
    assert not judged([patient(seed) for seed in range(count)])


@pytest.mark.parametrize("change", WRONG)
def test_a_lone_case_only_warns(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert {one.severity for one in judged([change(patient(0))])} == {WARNING}


def test_a_tumor_in_the_place_of_a_kidney_is_an_exception() -> None:
    maps = [patient(seed) for seed in range(20)]
    assert not judged([*maps, patient(20, "whole")])
    assert not judged([maps[0], maps[1], patient(20, "whole")])
    some = judged([*maps[:10], patient(20, "whole"), patient(21, "whole")])
    assert [one.severity for one in some] == [WARNING] * 2
    # A part of the set by somebody else's rules.
    assert {one.severity for one in judged([*maps, *map(left_right, maps[:8])])} == {WARNING}


def test_masses_larger_than_kidneys_and_empty_maps_are_told() -> None:
    def seen(case: int, *volumes: float) -> Labelled:
        return Labelled(f"case_{case:05d}", Path("x"), (0.0, *volumes), None)

    large = judge_classes([*(seen(number, 100, 0, 200) for number in range(4)), seen(4, 100, 0, 0)])
    assert [(one.case, one.severity) for one in large] == [(f"case_{number:05d}", WARNING) for number in range(4)]
    assert not judge_classes([*(seen(number, 100, 200, 0) for number in range(3)), seen(4, 100, 0, 0)])
    assert "label 3 (cyst) has 200 mL and label 1 (kidney) 100 mL" in large[0].finding
    assert [one.severity for one in judge_classes([seen(0, 0, 0, 0), seen(1, 0, 0, 0)])] == [ERROR] * 2
    assert [one.severity for one in judge_classes([seen(0, 0, 0, 0), seen(1, 90, 0, 0)])] == [WARNING]


@pytest.mark.parametrize("count", [6, pytest.param(42, marks=pytest.mark.slow)])
def test_none_of_kits19_is_doubted_and_all_are_with_sides_for_labels(shared_data: Path, count: int) -> None:
    seen, sides = [], []
    for path in sorted((shared_data / "kits19").glob("case_*/segmentation.nii.gz"))[:: 42 // count]:
        volume = read_labels(path, allowed=range(3))
        seen.append(measure_classes(path.parent.name, path, volume.array, volume.spacing))
        sides.append(measure_classes(path.parent.name, path, left_right(volume.array), volume.spacing))
    assert len(seen) == count
    assert not judge_classes(seen)
    for number in range(len(seen)):  # nor any one alone, nor any pair
        assert not judge_classes(seen[number : number + 1])
        assert not judge_classes(seen[number : number + 2])
    assert len(errors(judge_classes(sides))) > 0.9 * count


def test_prepare_refuses_them(tmp_path: Path) -> None:
    for number in range(3):
        hu, labels = kidney_pair(number, (24, 96, 96))
        write_case(tmp_path / "tree", f"case_{number:05d}", hu, left_right(labels), (6.0, 3.0, 3.0))
    with pytest.raises(KitsError, match=r"3 of 3 cases are damaged, .*label 2 \(tumor\) fills .* no kidney .*left and the right"):
        prepare(data_config(tmp_path / "tree", tmp_path / "cache"))
    assert not (tmp_path / "cache" / "index.json").exists()
