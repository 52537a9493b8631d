"""Two hundred files, a third of them damaged: every failure is listed, and the sound results are those of a clean run."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.conftest import kidney_pair
from tests.predicting import command, write_checkpoints

FORMATS = ("nii", "nii.gz", "nrrd", "mha")
COUNT = 200


def damage(path: Path, rng: np.random.Generator) -> None:
    """One of the ways in which files go wrong, at random."""
    content = path.read_bytes()
    match rng.integers(5):
        case 0:
            path.write_bytes(content[: rng.integers(0, len(content) // 2)])
        case 1:
            path.write_bytes(b"")
        case 2:
            path.write_bytes(rng.bytes(len(content)))
        case 3:
            path.write_bytes(gzip.compress(b"not an image") if path.name.endswith(".gz") else b"not an image")
        case _:
            image = sitk.ReadImage(path)
            odd = (sitk.GetArrayFromImage(image) + 1024, np.full((4, 8, 8), np.nan, np.float32), np.zeros((8, 8), np.int16))
            sitk.WriteImage(sitk.GetImageFromArray(odd[rng.integers(3)]), path)


@pytest.mark.slow
def test_a_batch_with_damaged_files_finishes_lists_them_and_changes_no_good_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    checkpoints = [*write_checkpoints(tmp_path), "device=cpu"]
    for number in range(COUNT):
        image = sitk.GetImageFromArray(kidney_pair(number, (8, 64, 64))[0])
        image.SetSpacing((1.5, 1.5, 8.0))
        path = tmp_path / "clean" / f"scan{number:03d}.{FORMATS[rng.integers(len(FORMATS))]}"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(image, path)
    shutil.copytree(tmp_path / "clean", tmp_path / "mixed")
    bad = sorted(rng.choice(sorted(path.name for path in (tmp_path / "mixed").iterdir()), COUNT // 3, replace=False).tolist())
    for name in bad:
        damage(tmp_path / "mixed" / name, rng)

    clean = command(*checkpoints, f"input={tmp_path / 'clean'}", f"output={tmp_path / 'clean_out'}", timeout=1800)
    mixed = command(*checkpoints, f"input={tmp_path / 'mixed'}", f"output={tmp_path / 'mixed_out'}", timeout=1800)

    assert clean.returncode == 0, clean.stderr
    assert mixed.returncode == 1
    assert "Traceback" not in mixed.stderr + mixed.stdout
    assert f"{len(bad)} of {COUNT} inputs could not be segmented" in mixed.stderr.splitlines()[-1]
    report = json.loads((tmp_path / "mixed_out" / "report.json").read_text(encoding="utf-8"))
    assert sorted(Path(entry["input"]).name for entry in report["failed"].values()) == bad
    assert not [entry for entry in report["failed"].values() if "unexpected" in entry["error"]]
    results = sorted(path.name for path in (tmp_path / "mixed_out").glob("*.nii.gz"))
    assert len(results) == COUNT - len(bad) == len(report["cases"])
    for name in results:
        assert (tmp_path / "mixed_out" / name).read_bytes() == (tmp_path / "clean_out" / name).read_bytes()
