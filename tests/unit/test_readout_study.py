"""The study of the read-out changes maps as it says, and its agreement is that of the textbook."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from kits.bench.robustness import agreement, measure, variants_of
from kits.config.composing import compose
from tests.unit.test_readout import body


def test_changes_are_what_their_names_say() -> None:
    labels = body(10.0, (20.0, 0.0, 24.0))
    changed = dict(variants_of(labels, (2.0, 1.0, 1.0)))
    assert set(changed) == {"dilated", "eroded", "slices of 5 mm", "cut by a quarter"}
    assert np.count_nonzero(changed["dilated"][0] == 2) > np.count_nonzero(labels == 2)
    assert np.count_nonzero(changed["eroded"][0]) < np.count_nonzero(labels)
    thick, spacing = changed["slices of 5 mm"]
    assert spacing == (5.0, 1.0, 1.0)
    assert len(thick) == 33  # 0, 5 to 160 mm
    cut, _ = changed["cut by a quarter"]
    np.testing.assert_array_equal(cut, labels[-len(cut) :])  # the tumor is in the upper half
    assert cut[0].any()
    assert np.count_nonzero(cut == 2) == np.count_nonzero(labels == 2)


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
    measure(config)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["agreement"]["all"]["r"] > 0.99
    assert summary["changes"]["dilated"]["cases"] == 2
    assert summary["changes"]["cut by a quarter"]["flagged as cut"] == 2
    assert summary["scores"]["R"] == {"1": 3}
    assert (tmp_path / "out" / "agreement.png").stat().st_size > 5000
    assert len((tmp_path / "out" / "agreement.csv").read_text().splitlines()) == 4
