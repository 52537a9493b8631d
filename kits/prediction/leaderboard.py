"""The zip that KiTS19's leaderboard takes, and its check.

`prediction_00210.nii.gz` .. `prediction_00299.nii.gz` at its root.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from kits.core.errors import KitsError
from kits.core.labels import KITS19_CLASSES
from kits.data.index import IMAGE_NAME, find_predictions
from kits.io import read_geometry, read_labels, whole_file
from kits.volume import compare

FIRST, LAST = 210, 299
TEST_CASES = tuple(f"case_{number:05d}" for number in range(FIRST, LAST + 1))
ZIP_NAME = "predictions.zip"


def entry_name(case: str) -> str:
    """Name a case's label map inside the zip."""
    return f"prediction_{case.removeprefix('case_')}.nii.gz"


def write_submission(predictions: Path, images: Path | None) -> Path:
    """Check the label maps of the 90 test cases in a folder and zip them.

    Args:
        predictions: holds `case_00210.nii.gz` and so on, or any other known names.
        images: a tree of `case_XXXXX/imaging.nii.gz`; where it has a case, its prediction must have the image's size.

    Returns:
        The zip's path, in the same folder.

    Raises:
        KitsError: a prediction is missing, damaged, of another size than its image, or has labels besides 0, 1, 2.
    """
    found = find_predictions(predictions, TEST_CASES, key="predictions")
    _refuse_missing(predictions, [case for case in TEST_CASES if case not in found])
    for case, file in found.items():
        if not file.name.endswith(".nii.gz"):
            raise KitsError(f"{file}: the leaderboard takes .nii.gz; predict the case again, or convert it")
        check_prediction(file, case, images)
    path = predictions / ZIP_NAME
    # The label maps are compressed already.
    with whole_file(path, ".zip") as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for case in TEST_CASES:
            archive.write(found[case], entry_name(case))
    return path


def refuse_other_classes(classes: Sequence[str]) -> None:
    """Refuse a checkpoint with labels that KiTS19's leaderboard does not know, before hours are spent."""
    if list(classes) != list(KITS19_CLASSES):
        raise KitsError(f"submission=true: the fine checkpoint writes {', '.join(classes)}; give one trained with data=kits19")


def check_submission(path: Path, images: Path | None) -> None:
    """Check a zip as `write_submission` checks a folder, and that it holds nothing else.

    Raises:
        KitsError: it is no zip, or what is in it would not be scored.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            names = archive.namelist()
            _refuse_missing(path, [case for case in TEST_CASES if entry_name(case) not in names])
            foreign = sorted(set(names) - {entry_name(case) for case in TEST_CASES})
            if foreign or len(names) != len(TEST_CASES):
                named = ", ".join(map(repr, foreign[:3])) or "a name twice"
                raise KitsError(f"{path}: holds {named} beside the 90 predictions at its root; take it out")
            for case in TEST_CASES:
                single = Path(archive.extract(entry_name(case), folder))
                check_prediction(single, case, images)
                single.unlink()
    except (zipfile.BadZipFile, OSError) as error:
        raise KitsError(f"{path}: no zip that can be read ({error}); make it again") from error


def check_prediction(path: Path, case: str, images: Path | None) -> None:
    """Refuse a damaged label map, or one of other labels or voxels than KiTS19's image has."""
    image = None if images is None else images / case / IMAGE_NAME
    if image is not None and image.is_file():
        grid, true = read_geometry(path), read_geometry(image)
        if grid.size != true.size or (grid.axes, grid.flips) != (true.axes, true.flips):  # its scorer compares what is stored
            differs = compare(grid, true) or "its voxels are stored in another order"
            raise KitsError(f"{path}: {differs} as in {image}; predict the case again")
    read_labels(path, allowed=range(len(KITS19_CLASSES)))


def _refuse_missing(path: Path, missing: Sequence[str]) -> None:
    if missing:
        listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise KitsError(f"{path}: lacks {len(missing)} of the {len(TEST_CASES)} test cases ({listed}); predict them first")
