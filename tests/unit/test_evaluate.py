"""Scores over the expected cases, whatever files there are."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from kits.config import plain
from kits.config.composing import checked
from kits.config.schema import parse
from kits.config.schema.commands import Evaluate
from kits.config.schema.evaluation import Measures
from kits.core.errors import KitsError
from kits.data.index import LABEL_NAME
from kits.data.splits import wanted_cases
from kits.io import read_labels, write_labels
from kits.metrics import folder_scores
from kits.metrics.folder_scores import find_truths
from tests.conftest import kidney_pair, write_case


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


OPTIONS: Evaluate = checked("evaluate", ["prediction=x", "truth=x", "output=x"])
CASES = [f"case_{number:05d}" for number in range(4)]


def evaluate(prediction: Path, truth: Path, output: Path, **options: Any) -> str:
    paths = {"prediction": str(prediction), "truth": str(truth), "output": str(output)}
    return folder_scores.evaluate(OPTIONS.model_copy(update={**paths, **options}))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_expected_case_counts(kits_tree: Path, predictions: Path, tmp_path: Path, workers: int) -> None:
    table = evaluate(predictions, kits_tree, tmp_path / "out", cases=CASES, workers=workers)
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["case"] for row in rows] == CASES
    assert [float(row["kidney"]) for row in rows] == [1, 1, 0, 0]
    assert [float(row["tumor"]) for row in rows] == [1, 0, 0, 0]
    assert [float(row["composite"]) for row in rows] == [1, 0.5, 0, 0]
    assert rows[0]["status"] == rows[1]["status"] == "ok"
    assert "missing" in rows[2]["status"]
    assert "voxels" in rows[3]["status"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    means = {"cases": 4, "kidney": 0.5, "tumor": 0.25, "composite": 0.375, "missing": ["case_00002", "case_00003"]}
    assert {key: summary[key] for key in means} == means
    assert list(summary) == [*means, "columns", "tumors", "intervals"]
    assert (tmp_path / "out" / "table.txt").read_text(encoding="utf-8") == table
    assert "2 of 4 cases have no usable prediction" in table
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "summary.json",
        "table.txt",
        "tumors.csv",
    ]


def test_a_whole_set_has_no_key_for_missing_cases(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    evaluate(predictions, kits_tree, tmp_path, cases=CASES[:2], workers=1)
    assert "missing" not in json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))


def test_a_damaged_prediction_scores_zero(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    path = predictions / "case_00000.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    table = evaluate(predictions, kits_tree, tmp_path, cases=CASES[:2], workers=1)
    assert "incomplete" in table
    assert [float(row["kidney"]) for row in rows_of(tmp_path).values()] == [0, 1]


def test_zeros_of_no_usable_prediction_are_written_and_are_no_success(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    given = ["prediction=" + str(predictions), "truth=" + str(kits_tree), f"output={tmp_path}", "cases=[case_00002,case_00003]"]
    ended = subprocess.run([sys.executable, "-m", "kits.evaluate", *given, "workers=1"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    words = r"kits\.evaluate: prediction=.*: none can be used \(refused: case_00003.nii.gz has .*\); every score is 0, and "
    assert re.match(words, ended.stderr.splitlines()[-1])
    assert "2 of 2 cases have no usable prediction" in (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["kidney"] == 0


def test_another_header_is_scored_but_said(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    image = nib.load(predictions / "case_00000.nii.gz")
    affine = image.affine.copy()
    affine[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), predictions / "case_00000.nii.gz")
    table = evaluate(predictions, kits_tree, tmp_path, cases=CASES[:1], workers=1)
    assert "ok, but its origin is shifted by (0, 0, -5) mm (z, y, x): scored voxel by voxel\n" in table
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["kidney"] == 1


def test_a_damaged_truth_stops_the_evaluation(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth" / "case_00000" / "segmentation.nii.gz"
    truth.parent.mkdir(parents=True)
    truth.write_bytes((kits_tree / "case_00000" / "segmentation.nii.gz").read_bytes()[:-40])
    with pytest.raises(KitsError, match="incomplete"):
        evaluate(predictions, tmp_path / "truth", tmp_path / "out", cases=CASES[:1], workers=1)
    assert not (tmp_path / "out").exists()


def test_the_expected_cases_are_the_named_ones_or_the_splits_or_all(kits_tree: Path, tmp_path: Path) -> None:
    split = tmp_path / "splits.json"
    split.write_text(json.dumps({"train": CASES[:3], "validation": CASES[3:]}))
    assert list(find_truths(kits_tree, None, LABEL_NAME)) == CASES
    assert list(find_truths(kits_tree, wanted_cases(None, str(split), "validation", None), LABEL_NAME)) == CASES[3:]
    assert list(find_truths(kits_tree, wanted_cases(["case_00002"], str(split), "validation", None), LABEL_NAME)) == [
        "case_00002"
    ]


def test_wrong_folders_and_cases_are_named(kits_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="no such folder"):
        find_truths(tmp_path / "absent", None, LABEL_NAME)
    with pytest.raises(KitsError, match="no CASE"):
        find_truths(tmp_path, None, LABEL_NAME)
    with pytest.raises(KitsError, match="no label map of case_99999"):
        find_truths(kits_tree, ["case_99999"], LABEL_NAME)
    with pytest.raises(KitsError, match="list is empty"):
        find_truths(kits_tree, [], LABEL_NAME)
    with pytest.raises(KitsError, match="no such folder"):
        evaluate(tmp_path / "absent", kits_tree, tmp_path, cases=CASES, workers=1)


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    return {row["case"]: row for row in csv.DictReader((folder / "cases.csv").read_text(encoding="utf-8").splitlines())}


def test_a_case_without_a_prediction_has_the_worst_of_every_score(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    evaluate(predictions, kits_tree, tmp_path, cases=CASES, workers=1)
    found = rows_of(tmp_path)
    diagonal = np.linalg.norm([20 * 4.0, 64 * 1.5, 64 * 1.5])  # of the trees' grids
    perfect, absent = found["case_00000"], found["case_00002"]
    for region in ("kidney", "tumor"):
        assert float(perfect[f"{region}_surface_dice"]) == 1
        assert float(perfect[f"{region}_hd95_mm"]) == float(perfect[f"{region}_difference_ml"]) == 0
        assert float(absent[f"{region}_surface_dice"]) == 0
        assert float(absent[f"{region}_hd95_mm"]) == pytest.approx(diagonal)
        assert float(absent[f"{region}_difference_ml"]) == pytest.approx(-float(absent[f"{region}_ml"]))
        assert float(absent[f"{region}_difference_percent"]) == pytest.approx(-100)
    assert (absent["tumors"], absent["tumors_found"], absent["tumors_predicted"]) == ("1", "0", "0")
    # A tumor that was called kidney is missed like one without a prediction, and cannot better the mean by dropping out of it.
    assert float(found["case_00001"]["tumor_hd95_mm"]) == pytest.approx(diagonal)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["columns"]["tumor_hd95_mm"]["mean"] == pytest.approx(0.75 * diagonal)
    assert summary["columns"]["tumor_hd95_mm"]["cases"] == 4
    assert summary["tumors"]["recall"]["all"] | {"low": 0, "high": 0} == {
        "share": 0.25, "low": 0, "high": 0, "matched": 1, "of": 4,
    }  # fmt: skip
    assert summary["tumors"]["precision"]["all"]["of"] == 1


def test_the_summary_says_what_each_figure_is(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    table = evaluate(predictions, kits_tree, tmp_path, cases=CASES, workers=1)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    header = (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert ["case", *summary["columns"]] == header[: 1 + len(summary["columns"])]
    assert {column["unit"] for column in summary["columns"].values()} == {"1", "mm", "mL", "%"}
    assert "DeepMind" in summary["columns"]["kidney_hd95_mm"]["meaning"]
    assert "1.0330772532390826 mm" in summary["columns"]["kidney_surface_dice"]["meaning"]
    kidney = summary["columns"]["kidney"]
    assert kidney["low"] <= kidney["mean"] <= kidney["high"]
    assert summary["intervals"]["resamples"] == OPTIONS.bootstrap.resamples
    assert max(len(line) for line in table.splitlines() if not line.startswith("case_000")) <= 100
    evaluate(predictions, kits_tree, tmp_path / "again", cases=CASES, workers=1)
    assert json.loads((tmp_path / "again" / "summary.json").read_text(encoding="utf-8")) == summary


def test_the_truths_spacing_counts_whatever_the_predictions_header_says(
    kits_tree: Path, predictions: Path, tmp_path: Path
) -> None:
    options = {"cases": ["case_00001"], "workers": 1}
    evaluate(predictions, kits_tree, tmp_path / "before", **options)
    image = nib.load(predictions / "case_00001.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), 3 * image.affine), predictions / "case_00001.nii.gz")
    table = evaluate(predictions, kits_tree, tmp_path / "after", **options)
    assert "its spacing is (12, 4.5, 4.5) mm (z, y, x), not (4, 1.5, 1.5): scored voxel by voxel" in table
    before, after = (rows_of(tmp_path / folder)["case_00001"] for folder in ("before", "after"))
    assert {**before, "status": ""} == {**after, "status": ""}


def test_a_label_out_of_range_is_named_and_scores_zero(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    image = nib.load(predictions / "case_00000.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    labels[labels == 2] = 7
    nib.save(nib.Nifti1Image(labels, image.affine), predictions / "case_00000.nii.gz")
    evaluate(predictions, kits_tree, tmp_path, cases=CASES[:2], workers=1)
    row = rows_of(tmp_path)["case_00000"]
    assert "7" in row["status"]
    assert "case_00000.nii.gz" in row["status"]
    assert float(row["kidney"]) == 0


def test_a_truth_without_a_tumor(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    """Nothing there and nothing found is perfect; something found is as wrong as can be, and a percentage of nothing is none."""
    truth = read_labels(kits_tree / "case_00000" / "segmentation.nii.gz", allowed=(0, 1, 2))
    for case in CASES[:2]:
        write_labels(tmp_path / "truth" / case / LABEL_NAME, np.minimum(truth.array, 1), truth.grid)
        write_labels(
            tmp_path / "found" / f"{case}.nii.gz", truth.array if case == CASES[0] else np.minimum(truth.array, 1), truth.grid
        )
    table = evaluate(tmp_path / "found", tmp_path / "truth", tmp_path / "out", cases=CASES[:2], workers=1)
    false, none = (rows_of(tmp_path / "out")[case] for case in CASES[:2])
    assert (float(none["tumor"]), float(none["tumor_surface_dice"]), float(none["tumor_hd95_mm"])) == (1, 1, 0)
    assert float(none["tumor_difference_percent"]) == 0
    assert (float(false["tumor"]), float(false["tumor_surface_dice"])) == (0, 0)
    assert float(false["tumor_hd95_mm"]) > 100
    assert false["tumor_difference_percent"] == ""
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["columns"]["tumor_difference_percent"]["cases"] == 1
    assert summary["tumors"]["recall"]["all"]["share"] is None
    assert summary["tumors"]["precision"]["all"]["share"] == 0
    assert "true tumors found: there are none" in table


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"hd95": "median"}, "measures.hd95=median: give one of surfels, voxels"),
        ({"overlap": 2}, "measures.overlap=2: give a number of at least 0 and of at most 1"),
        ({"sizes_mm": [40, 20]}, "measures.sizes_mm"),
        ({"tolerances_mm": {"liver": 1}}, "measures.tolerances_mm.liver: no such region"),
    ],
)
def test_measures_that_cannot_be_are_named(override: dict[str, object], words: str) -> None:
    with pytest.raises(KitsError, match=re.escape(words)):
        parse(Measures, {**plain(OPTIONS.measures), **override}, "measures")


@pytest.mark.parametrize("pattern", ["prediction_{:05d}.nii.gz", "KiTS_{:05d}.nii.gz", "case_{:05d}/segmentation.nii.gz"])
def test_predictions_under_other_known_names_are_scored(kits_tree: Path, predictions: Path, tmp_path: Path, pattern: str) -> None:
    other = tmp_path / "other"
    for number in (0, 1, 3):
        path = other / pattern.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((predictions / f"case_{number:05d}.nii.gz").read_bytes())
    tables = [evaluate(folder, kits_tree, tmp_path / "out", cases=CASES, workers=1) for folder in (predictions, other)]
    assert tables[0].splitlines()[:10] == tables[1].splitlines()[:10]
    assert "case_00002: missing: no prediction under any known name" in tables[1]


def test_truths_named_as_nnunet_names_them_are_found(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "labelsTr" / f"KiTS_{number:05d}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((kits_tree / f"case_{number:05d}" / "segmentation.nii.gz").read_bytes())
    cases = list(find_truths(tmp_path / "labelsTr", None, LABEL_NAME))
    assert cases == CASES
    tables = [
        evaluate(predictions, truth, tmp_path / "out", cases=cases, workers=1) for truth in (kits_tree, tmp_path / "labelsTr")
    ]
    assert tables[0] == tables[1]


def test_nothing_that_matches_and_the_truth_itself_are_refused(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    for path in predictions.iterdir():
        path.rename(path.with_name(f"scan_{path.name}"))
    with pytest.raises(KitsError, match=r"holds 3 label map\(s\) .*none of case_00000, .*; known names are"):
        evaluate(predictions, kits_tree, tmp_path / "out", cases=CASES, workers=1)
    with pytest.raises(KitsError, match="is the truth itself"):
        evaluate(kits_tree, kits_tree, tmp_path / "out", cases=CASES, workers=1)
    assert not (tmp_path / "out").exists()


def write_over(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    path.unlink()
    nib.save(nib.Nifti1Image(labels, affine), path)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("moved", [False, True])
def test_a_mirrored_header_is_named_however_it_lies(
    kits_tree: Path, predictions: Path, tmp_path: Path, axis: int, moved: bool
) -> None:
    """The truth's voxels: elsewhere they are scored as stored; in its place the header must hold, and the doubt is told."""
    image = nib.load(kits_tree / "case_00000" / "segmentation.nii.gz")
    voxels, affine = np.roll(np.asarray(image.dataobj), (3, 9, 9), (0, 1, 2)), image.affine.copy()
    truth = tmp_path / "truth" / "case_00000" / "segmentation.nii.gz"
    truth.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(voxels, affine), truth)
    if not moved:
        affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
    affine[:3, axis] *= -1
    write_over(predictions / "case_00000.nii.gz", voxels, affine)
    table = evaluate(predictions, tmp_path / "truth", tmp_path / "out", cases=CASES[:1], workers=1)
    name = ("head-foot", "front-back", "left-right")[axis]
    kidney = float(rows_of(tmp_path / "out")["case_00000"]["kidney"])
    if moved:
        assert f"case_00000: ok, but its header is mirrored {name}: scored voxel by voxel as stored\n" in table
        assert kidney == 1
    else:
        assert f"mirrored {name} it would fit (kidney Dice 1.00, not 0." in table
        assert kidney < 0.85


def test_exchanged_labels_another_scan_and_another_size_are_told(kits_tree: Path, predictions: Path, tmp_path: Path) -> None:
    image = nib.load(predictions / "case_00000.nii.gz")
    voxels = np.asarray(image.dataobj)
    write_over(predictions / "case_00000.nii.gz", np.array([0, 2, 1], np.uint8)[voxels], image.affine)
    write_over(predictions / "case_00001.nii.gz", np.roll(voxels, 28, 1), image.affine)
    table = evaluate(predictions, kits_tree, tmp_path / "out", cases=CASES, workers=1)
    assert "case_00000: ok, but with labels 1 and 2 exchanged it would fit (tumor Dice 1.00, not 0.00)\n" in table
    assert "case_00001: ok, but it lies nowhere on the truth's kidneys" in table
    assert re.search(r"case_00003: refused: case_00003.nii.gz has \(19, 64, 64\) voxels \(z, y, x\), not \(20, 64, 64\)", table)


def test_a_size_is_refused_before_anything_is_decompressed(
    kits_tree: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        "kits.metrics.folder_scores.read_labels",
        lambda path, *rest, **more: read.append(path.name) or read_labels(path, *rest, **more),
    )
    evaluate(predictions, kits_tree, tmp_path / "out", cases=CASES[1:], workers=1)
    assert read == ["segmentation.nii.gz", "case_00001.nii.gz", "segmentation.nii.gz", "segmentation.nii.gz"]


def test_truths_whose_labels_are_sides_are_refused(predictions: Path, tmp_path: Path) -> None:
    for number in range(2):
        hu, labels = kidney_pair(number, (24, 96, 96))
        sides = np.where(labels > 0, np.where(np.arange(96) < 48, 1, 2), 0).astype(np.uint8)
        write_case(tmp_path / "truth", f"case_{number:05d}", hu, sides, (6.0, 3.0, 3.0))
    with pytest.raises(KitsError, match=r"truth: .*label 2 \(tumor\) fills a region of .* as in 2 of 2 cases"):
        evaluate(predictions, tmp_path / "truth", tmp_path / "out", cases=CASES[:2], workers=1)
    with pytest.MonkeyPatch.context() as patch:  # said before anything is scored
        patch.setattr("kits.metrics.folder_scores.score", None)
        with pytest.raises(KitsError, match="truth: "):
            evaluate(predictions, tmp_path / "truth", tmp_path / "out", cases=CASES[:2], workers=1)
    own = write_case(tmp_path / "own", "case_00000", hu, labels, (6.0, 3.0, 3.0)).parent
    one = evaluate(own, tmp_path / "truth", tmp_path / "one", cases=CASES[:1], workers=1)
    assert "case_00000: " in one.splitlines()[-1]
    assert "are its labels the left and the right kidney" in one.splitlines()[-1]
    empty = write_case(tmp_path / "empty", "case_00000", hu, labels * 0)
    with pytest.raises(KitsError, match=r"truth: .*no kidney in it"):
        evaluate(predictions, empty.parent, tmp_path / "none", cases=CASES[:1], workers=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: labels.astype(np.int16) * 255, "label values 255, 510"),
        (lambda labels: labels.astype(np.uint8) * np.uint8(127), "label values 127, 254"),
        (lambda labels: labels.astype(np.float32) / 3, "probabilities"),
        (lambda labels: -labels.astype(np.int16), "label values -2, -1"),
        (lambda labels: np.stack([labels == value for value in range(3)], -1).astype(np.uint8), "one value per voxel"),
    ],
)
def test_what_are_no_labels_is_no_prediction(
    kits_tree: Path, predictions: Path, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    image = nib.load(predictions / "case_00000.nii.gz")
    write_over(predictions / "case_00000.nii.gz", change(np.asarray(image.dataobj)), image.affine)
    table = evaluate(predictions, kits_tree, tmp_path / "out", cases=CASES[:2], workers=1)
    assert words in table
    assert "1 of 2 cases have no usable prediction" in table
