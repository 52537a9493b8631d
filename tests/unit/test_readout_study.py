"""The study of the read-out changes maps as it says, and its agreement is that of the textbook."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from kits.bench.changed_maps import sliced, variants_of
from kits.bench.robustness import agreement, measure
from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.benches import ReadoutStudy
from tests.unit.test_readout import body


def test_changes_are_what_their_names_say() -> None:
    labels = body(10.0, (20.0, 0.0, 24.0))
    changed = dict(variants_of(labels, (2.0, 1.0, 1.0)))
    assert set(changed) == {"dilated", "eroded", "slices of 5 mm", "turned by 15 degrees", "cut by a quarter"}
    assert np.count_nonzero(changed["dilated"][0] == 2) > np.count_nonzero(labels == 2)
    assert np.count_nonzero(changed["eroded"][0]) < np.count_nonzero(labels)
    thick, spacing = changed["slices of 5 mm"]
    assert spacing == (5.0, 1.0, 1.0)
    assert len(thick) == 33  # 0, 5 to 160 mm
    turned, _ = changed["turned by 15 degrees"]
    assert np.count_nonzero(turned == 2) == pytest.approx(np.count_nonzero(labels == 2), rel=0.03)
    np.testing.assert_allclose(corner(turned), turn(corner(labels), 15.0), atol=0.3)
    cut, _ = changed["cut by a quarter"]
    np.testing.assert_array_equal(cut, labels[-len(cut) :])  # the tumor is in the upper half
    assert cut[0].any()
    assert np.count_nonzero(cut == 2) == np.count_nonzero(labels == 2)


def corner(labels: np.ndarray) -> np.ndarray:
    """Mean (y, x) in mm of the tumor's voxels from the map's middle, pixels of 1 mm."""
    return np.argwhere(labels == 2).mean(axis=0)[1:] - (np.array(labels.shape[1:]) - 1) / 2


def turn(point: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) @ point


@pytest.mark.parametrize("step", [0.5, 2.0, 3.0])
def test_slices_of_5_mm_are_5_mm_apart(step: float) -> None:
    places = np.arange(0, 90, step)
    rows = np.arange(0.0, 100)
    cone = np.hypot(*np.meshgrid(rows - 50, rows - 50, indexing="ij"))  # its radius tells its height: 5 + z / 3
    labels = np.where(cone < 5 + places[:, None, None] / 3, 2, 0).astype(np.uint8)
    found = sliced(labels, (step, 1.0, 1.0))
    radii = np.sqrt((found == 2).sum(axis=(1, 2)) / np.pi)
    np.testing.assert_allclose(radii, 5 + np.arange(len(found)) * 5 / 3, atol=0.35)


def test_agreement_with_and_without_the_farthest() -> None:
    told = agreement([("a", 1.0, 1.5), ("b", 2.0, 2.5), ("c", 3.0, 3.7), ("d", 4.0, 9.0)])
    assert told["all"]["bias"] == pytest.approx(1.675)
    without = told["without d"]
    assert (without["cases"], without["bias"], without["median_error"]) == (3, pytest.approx(1.7 / 3), pytest.approx(0.5))
    assert without["limits"] == pytest.approx([1.7 / 3 - 1.96 * 0.11547, 1.7 / 3 + 1.96 * 0.11547], abs=1e-4)


def test_the_study_writes_tables_and_a_plot(tmp_path: Path) -> None:
    root = tmp_path / "kits"
    for name, radius in (("case_00000", 9.0), ("case_00001", 12.0), ("case_00002", 15.0)):
        (root / name).mkdir(parents=True)
        stored = body(radius, (10.0, 0.0, 28.0), (4.0, 2.0, 2.0)).transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(stored, np.diag([-2.0, -2.0, 4.0, 1.0])), root / name / "segmentation.nii.gz")
    sizes = [{"case_id": f"case_0000{number}", "radiographic_size": size} for number, size in enumerate((1.8, 2.4, 3.0))]
    (root / "kits.json").write_text(json.dumps(sizes))
    config = compose("bench_readout_study", [f"root={root}", f"output={tmp_path / 'out'}", "every=2", "workers=1"])
    measure(parse(ReadoutStudy, config))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["agreement"]["all"]["r"] > 0.99
    assert summary["changes"]["dilated"]["cases"] == 2
    assert summary["changes"]["cut by a quarter"]["flagged as cut"] == 2
    assert summary["scores"]["R"] == {"1": 3}
    assert (tmp_path / "out" / "agreement.png").stat().st_size > 5000
    assert len((tmp_path / "out" / "agreement.csv").read_text().splitlines()) == 4
