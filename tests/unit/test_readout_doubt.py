"""The interval of a tumor's volume and diameter is what the members, or the probabilities, make of the same tumor."""

from math import pi
from pathlib import Path

import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.io import write_labels, write_volume
from kits.readout.cohort import measure_map, write_tables
from kits.readout.maps import find_maps
from kits.volume import Grid
from tests.unit.test_readout import body

SPACING = (2.0, 1.0, 1.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid_of(labels: np.ndarray) -> Grid:
    return Grid(labels.shape[::-1], SPACING[::-1], (0.0, 0.0, 0.0), IDENTITY)


def far_from_ball(labels: np.ndarray, offset: float) -> np.ndarray:
    """Distance in mm of each voxel from the center of `body`'s ball at (0, 0, offset)."""
    z, y, x = np.indices(labels.shape)
    middle = [(n - 1) / 2 for n in labels.shape]
    squares = [((z - middle[0]) * 2) ** 2, (y - middle[1]) ** 2, (x - middle[2] - 60 - offset) ** 2]
    return np.asarray(np.sqrt(sum(squares)))


def test_members_give_the_least_and_the_most(tmp_path: Path) -> None:
    for name, radius in (("mean", 10.0), ("small", 8.0), ("large", 13.0)):
        labels = body(radius, (0.0, 0.0, 30.0))
        labels[2:4, :6, :6] = 2  # a tumor elsewhere, which is not this one's
        write_labels(tmp_path / name / "case_00000.nii.gz", labels, grid_of(labels))
    members = [tmp_path / "small", tmp_path / "large"]
    (job,) = find_maps(tmp_path / "mean", None, None, label_name="segmentation.nii.gz", members=members)
    found = measure_map(job, tmp_path / "cases")
    (tumor,) = (one for one in found["tumors"] if one["side"] == "left")
    assert tumor["volume_interval_ml"]["least"] == pytest.approx(4 / 3 * pi * 0.8**3, rel=0.05)
    assert tumor["volume_interval_ml"]["most"] == pytest.approx(4 / 3 * pi * 1.3**3, rel=0.03)
    assert tumor["axial_interval_mm"] == {"least": pytest.approx(16, abs=0.5), "most": pytest.approx(26, abs=0.5)}
    assert any(flag.startswith("uncertain border: 2.") for flag in tumor["flags"])
    write_tables([found], {}, tmp_path)
    assert "volume_interval_ml.least" in (tmp_path / "measurements.csv").read_text().splitlines()[0]
    (alone,) = find_maps(tmp_path / "mean", None, None, label_name="segmentation.nii.gz")
    assert [one["volume_interval_ml"] for one in measure_map(alone, tmp_path / "cases")["tumors"]] == [None, None]


def test_members_that_agree_leave_no_doubt(tmp_path: Path) -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    for name in ("mean", "one"):
        write_labels(tmp_path / name / "a.nii.gz", labels, grid_of(labels))
    (job,) = find_maps(tmp_path / "mean", None, None, label_name="segmentation.nii.gz", members=[tmp_path / "one"])
    (tumor,) = measure_map(job, tmp_path / "cases")["tumors"]
    assert tumor["volume_interval_ml"] == {"least": tumor["volume_ml"], "most": tumor["volume_ml"]}
    assert tumor["flags"] == []
    write_labels(tmp_path / "one" / "a.nii.gz", np.where(labels == 2, 1, labels), grid_of(labels))
    (tumor,) = measure_map(job, tmp_path / "cases")["tumors"]
    assert "uncertain: at the least there is no tumor here" in tumor["flags"]


def test_probabilities_beside_the_labels_give_an_interval(tmp_path: Path) -> None:
    labels = body(19.0, (0.0, 0.0, 34.0))
    # From 1 to 0 across 8 mm, half at the ball's surface.
    probability = np.clip(0.5 - (far_from_ball(labels, 34.0) - 19.0) / 8, 0, 1)
    write_labels(tmp_path / "a.nii.gz", labels, grid_of(labels))
    write_volume(
        tmp_path / "probabilities" / "a_tumor.nii.gz", np.rint(probability * 255).astype(np.uint8), grid_of(labels), 1 / 255
    )
    (job,) = find_maps(tmp_path, None, None, label_name="segmentation.nii.gz")
    (tumor,) = measure_map(job, tmp_path / "cases")["tumors"]
    assert tumor["axial_interval_mm"] == {"least": pytest.approx(34, abs=0.6), "most": pytest.approx(42, abs=0.6)}
    assert tumor["volume_interval_ml"]["most"] == pytest.approx(4 / 3 * pi * 2.1**3, rel=0.03)
    assert tumor["flags"] == [
        f"uncertain border: {tumor['volume_interval_ml']['least']:.1f} to {tumor['volume_interval_ml']['most']:.1f} mL,"
        " diameter 34 to 42 mm",
        "uncertain score: the diameter's interval has 1 to 2 points of R",
    ]


def test_what_belongs_to_another_map_is_refused(tmp_path: Path) -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    write_labels(tmp_path / "maps" / "a.nii.gz", labels, grid_of(labels))
    write_labels(tmp_path / "other" / "b.nii.gz", labels[1:], grid_of(labels[1:]))
    write_labels(tmp_path / "other" / "c.nii.gz", labels, grid_of(labels))
    with pytest.raises(KitsError, match=r"members: .*other has no label map of a; give the output of kits.predict"):
        find_maps(tmp_path / "maps", None, None, label_name="segmentation.nii.gz", members=[tmp_path / "other"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitsError, match=r"members: .*empty has no label map of a; give the output of kits.predict"):
        find_maps(tmp_path / "maps", None, None, label_name="segmentation.nii.gz", members=[tmp_path / "empty"])
    member = tmp_path / "other" / "b.nii.gz"
    (job,) = find_maps(tmp_path / "maps", None, None, label_name="segmentation.nii.gz", members=[member])
    with pytest.raises(KitsError, match=r"b.nii.gz: has .* voxels \(z, y, x\), not .*, as the label map that it belongs to has"):
        measure_map(job, tmp_path / "cases")
    write_volume(tmp_path / "maps" / "probabilities" / "a_tumor.nii.gz", labels, grid_of(labels))
    (job,) = find_maps(tmp_path / "maps", None, None, label_name="segmentation.nii.gz")
    with pytest.raises(KitsError, match="values from 0 to 2 are no probabilities"):
        measure_map(job, tmp_path / "cases")
