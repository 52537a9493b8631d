"""Files and folders are matched to cases under the names that KiTS and nnU-Net give them, and never guessed."""

from pathlib import Path

import pytest

from kits.core.errors import KitsError
from kits.data.index import case_id, case_number, find_predictions, label_maps, match

CASES = ["case_00061", "case_00170"]


@pytest.mark.parametrize(
    "name",
    [
        "case_00061.nii.gz", "case_00061.nii", "case_00061.nrrd", "case_00061.hdr", "case_00061/segmentation.nii.gz",
        "case_00061/aggregated_MAJ_seg.nii.gz", "prediction_00061.nii.gz", "prediction_61.nii.gz", "KiTS_00061.nii.gz",
        "kits_00061.nii.gz", "KITS19_00061.nii.gz", "kits23-00061.mha",
        "00061.nii.gz", "case_00061_0000.nii.gz", "kits00061.nii.gz",
    ],
)  # fmt: skip
def test_a_known_name_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert find_predictions(tmp_path, CASES, "aggregated_MAJ_seg.nii.gz") == {"case_00061": path}


@pytest.mark.parametrize(
    "name",
    [
        "case_00062.nii.gz", "case_00061_0001.nii.gz", "case_00061_probabilities.nii.gz",
        "61.nii.gz", "case_00061/imaging.nii.gz",
        ".case_00061.nii.gz", "case_00061.json", "patient_00061.nii.gz", "case_100061.nii.gz",
    ],
)  # fmt: skip
def test_a_folder_without_any_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(KitsError, match=r"none of case_00061, case_00170; known names are case_00061.nii.gz, prediction_00061"):
        find_predictions(tmp_path, CASES)


@pytest.mark.parametrize("other", ["prediction_00061.nii.gz", "case_00061.nii", "case_00061/segmentation.nii.gz"])
def test_two_files_of_one_case_are_refused(tmp_path: Path, other: str) -> None:
    for name in ("case_00061.nii.gz", other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(KitsError, match=r"are both of case_00061; take one out"):
        find_predictions(tmp_path, CASES)
    # A case that nobody asks for may have two.
    (tmp_path / "case_00170.nii.gz").touch()
    assert set(find_predictions(tmp_path, CASES[1:])) == {"case_00170"}


def test_any_other_name_is_matched_as_it_is(tmp_path: Path) -> None:
    for name in ("patient_a.nii.gz", "patient_b.nii.gz", "case_00061_0000.nii.gz", "case_00061.nii.gz"):
        (tmp_path / name).touch()
    maps = label_maps(tmp_path)
    assert match(["patient_a", "patient_c"], maps) == {"patient_a": tmp_path / "patient_a.nii.gz"}
    (tmp_path / "patient_c_0000.nii.gz").touch()
    assert match(["patient_c"], label_maps(tmp_path)) == {"patient_c": tmp_path / "patient_c_0000.nii.gz"}
    # Scans of one number are told apart by their whole names.
    assert len(set(match(["case_00061", "case_00061_0000"], maps).values())) == 2
    assert (case_number("patient_00061"), case_id("KiTS_00061_0000"), case_id("a")) == (None, "case_00061", "a")
