"""Scores over the expected cases, whatever files there are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kits.data.index import LABEL_NAME
from kits.errors import KitsError
from kits.evaluate import evaluate, expected_cases
from kits.io import read_labels, write_labels
from kits.labels import KITS19_CLASSES


@pytest.fixture
def predictions(kits_tree: Path, tmp_path: Path) -> Path:
    """Case 0 perfect, case 1 with its tumor called kidney, case 2 absent, case 3 a slice too short."""
    folder = tmp_path / "predictions"
    for number in (0, 1, 3):
        truth = read_labels(kits_tree / f"case_{number:05d}" / "segmentation.nii.gz", allowed=(0, 1, 2))
        labels = np.minimum(truth.array, 1) if number == 1 else truth.array
        write_labels(folder / f"case_{number:05d}.nii.gz", labels, truth.grid)
    short = nib.load(folder / "case_00003.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(short.dataobj)[:-1], short.affine), folder / "case_00003.nii.gz")
    return folder


KITS19 = {"label_name": LABEL_NAME, "classes": KITS19_CLASSES}
NAME = {"label_name": LABEL_NAME}
CASES = [f"case_{number:05d}" for number in range(4)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_expected_case_counts(kits_tree: Path, predictions: Path, tmp_path: Path, workers: int) -> None:
    table = evaluate(predictions, kits_tree, tmp_path / "out", cases=CASES, workers=workers, **KITS19)
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == CASES
    assert [float(row["kidney"]) for row in rows] == [1, 1, 0, 0]
    assert [float(row["tumor"]) for row in rows] == [1, 0, 0, 0]
    assert [float(row["composite"]) for row in rows] == [1, 0.5, 0, 0]
    assert rows[0]["status"] == rows[1]["status"] == "ok"
    assert "missing" in rows[2]["status"]
    assert "voxels" in rows[3]["status"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == {
        "cases": 4,
        "kidney": 0.5,
        "tumor": 0.25,
        "composite": 0.375,
        "missing": ["case_00002", "case_00003"],
    }
    assert (tmp_path / "out" / "table.txt").read_text() == table
    assert "2 of 4 cases have no usable prediction" in table
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cases.csv", "summary.json", "table.txt"]


def test_a_whole_set_has_no_key_for_missing_cases(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    evaluate(predictions, kits_tree, tmp_path, cases=CASES[:2], workers=1, **KITS19)
    assert set(json.loads((tmp_path / "summary.json").read_text())) == {"cases", "kidney", "tumor", "composite"}


def test_a_damaged_prediction_scores_zero(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    path = predictions / "case_00000.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    table = evaluate(predictions, kits_tree, tmp_path, cases=CASES[:1], workers=1, **KITS19)
    assert "incomplete" in table
    assert json.loads((tmp_path / "summary.json").read_text())["kidney"] == 0


def test_another_header_is_scored_but_said(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    image = nib.load(predictions / "case_00000.nii.gz")
    affine = image.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), predictions / "case_00000.nii.gz")
    table = evaluate(predictions, kits_tree, tmp_path, cases=CASES[:1], workers=1, **KITS19)
    assert "its origin is not the truth's" in table
    assert json.loads((tmp_path / "summary.json").read_text())["kidney"] == 1


def test_a_damaged_truth_stops_the_evaluation(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth" / "case_00000" / "segmentation.nii.gz"
    truth.parent.mkdir(parents=True)
    truth.write_bytes((kits_tree / "case_00000" / "segmentation.nii.gz").read_bytes()[:-40])
    with pytest.raises(KitsError, match="incomplete"):
        evaluate(predictions, tmp_path / "truth", tmp_path / "out", cases=CASES[:1], workers=1, **KITS19)
    assert not (tmp_path / "out").exists()


def test_the_expected_cases_are_the_named_ones_or_the_splits_or_all(kits_tree: Path, tmp_path: Path) -> None:
    split = tmp_path / "splits.json"
    split.write_text(json.dumps({"train": CASES[:3], "validation": CASES[3:]}))
    assert expected_cases(kits_tree, None, None, "validation", **NAME) == CASES
    assert expected_cases(kits_tree, None, str(split), "validation", **NAME) == CASES[3:]
    assert expected_cases(kits_tree, ["case_00002"], str(split), "validation", **NAME) == ["case_00002"]


def test_wrong_folders_and_cases_are_named(kits_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="no such folder"):
        expected_cases(tmp_path / "absent", None, None, "validation", **NAME)
    with pytest.raises(KitsError, match="no case_XXXXX"):
        expected_cases(tmp_path, None, None, "validation", **NAME)
    with pytest.raises(KitsError, match="no label map of case_99999"):
        expected_cases(kits_tree, ["case_99999"], None, "validation", **NAME)
    with pytest.raises(KitsError, match="list is empty"):
        expected_cases(kits_tree, [], None, "validation", **NAME)
    with pytest.raises(KitsError, match="no such folder"):
        evaluate(tmp_path / "absent", kits_tree, tmp_path, cases=CASES, workers=1, **KITS19)
