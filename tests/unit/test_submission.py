"""The zip for the leaderboard holds what it must, and whatever would not be scored is refused by name."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.io import read_labels, write_labels, write_volume
from kits.prediction.leaderboard import TEST_CASES, check_submission, refuse_other_classes, write_submission
from kits.volume import Grid

GRID = Grid((4, 3, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
LABELS = np.arange(60, dtype=np.uint8).reshape(5, 3, 4) % 3


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    write_labels(folder / f"{TEST_CASES[0]}.nii.gz", LABELS, GRID)
    for case in TEST_CASES[1:]:
        shutil.copy(folder / f"{TEST_CASES[0]}.nii.gz", folder / f"{case}.nii.gz")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_volume(tmp_path / "images" / "case_00250" / "imaging.nii.gz", LABELS.astype(np.int16), GRID)
    return tmp_path / "images"


def test_the_zip_has_the_90_cases_at_its_root(predictions: Path, images: Path, tmp_path: Path) -> None:
    path = write_submission(predictions, images)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"prediction_{number:05d}.nii.gz" for number in range(210, 300)]
        archive.extract("prediction_00299.nii.gz", tmp_path)
    np.testing.assert_array_equal(read_labels(tmp_path / "prediction_00299.nii.gz", allowed=range(3)).array, LABELS)
    check_submission(path, images)


def test_what_would_not_be_scored_is_refused(predictions: Path, images: Path) -> None:
    whole = write_submission(predictions, images)

    def refusal(path: Path) -> str:
        with pytest.raises(KitsError) as caught:
            write_submission(path, images)
        return str(caught.value)

    write_labels(predictions / "case_00211.nii.gz", LABELS + 1, GRID)
    assert "case_00211.nii.gz: label values 3" in refusal(predictions)
    write_labels(predictions / "case_00211.nii.gz", LABELS, GRID)
    other = Grid((5, 3, 4), GRID.spacing, GRID.origin, GRID.direction)
    write_labels(predictions / "case_00250.nii.gz", LABELS.reshape(4, 3, 5), other)
    assert "has (4, 3, 5) voxels (z, y, x), not (5, 3, 4) as in" in refusal(predictions)
    (predictions / "case_00250.nii.gz").write_bytes(b"")
    assert "case_00250.nii.gz: incomplete" in refusal(predictions)
    (predictions / "case_00250.nii.gz").unlink()
    assert "lacks 1 of the 90 test cases (case_00250)" in refusal(predictions)
    check_submission(whole, images)  # a refusal leaves the zip that was there
    with pytest.raises(KitsError, match="background, kidney, tumor, cyst; give one trained with data=kits19"):
        refuse_other_classes(["background", "kidney", "tumor", "cyst"])


def test_a_zip_is_checked(predictions: Path, tmp_path: Path) -> None:
    path = write_submission(predictions, None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.txt", "no")
    with pytest.raises(KitsError, match=r"holds '\.\./outside\.txt' beside"):
        check_submission(path, None)
    (tmp_path / "short.zip").write_bytes(path.read_bytes()[:500])
    with pytest.raises(KitsError, match="no zip that can be read"):
        check_submission(tmp_path / "short.zip", None)
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        for case in TEST_CASES:
            archive.write(predictions / f"{case}.nii.gz", f"predictions/prediction_{case[-5:]}.nii.gz")
    with pytest.raises(KitsError, match="lacks 90 of the 90"):
        check_submission(tmp_path / "nested.zip", None)
