"""The gate of the networks that come with the package: its figures, and the whole way to it in miniature."""

import json
from pathlib import Path

import numpy as np
import pytest

from kits.bench.gate import REAL, figures_of, measure, table
from kits.config.composing import checked
from kits.config.schema.benches import ShippedBench
from kits.core.errors import KitsError
from kits.io import read_volume
from kits.painter.kidney import Cyst
from kits.painter.shapes import label_cysts
from tests.conftest import SHARED, kidney_pair, write_case

ROWS = {
    "bright": {
        "kidney": 0.95,
        "painted": [{"largest_mm": 30.0, "tumor": 0.8}, {"largest_mm": 12.0, "tumor": 0.0}],
        "false_tumors": {REAL: 1, "case_00000": 0, "case_00001": 2},
        "coverage": [1.0, 0.99, 1.0],
    },
    "plain": {
        "kidney": 0.85,
        "painted": [{"largest_mm": 20.0, "tumor": 0.4}],
        "false_tumors": {REAL: 0, "case_00000": 1},
        "coverage": [1.0, 1.0],
    },
}


def test_the_figures_are_of_the_scans_and_cases_that_they_should_be_of() -> None:
    figures = figures_of(ROWS, ["plain"], 20)
    expected = {"kidney_contrast": 0.95, "kidney_plain": 0.85, "kidney_least": 0.85, "tumor": 0.6, "false_tumors": 0.8}
    assert figures == pytest.approx({**expected, "coverage": 0.99})
    assert "| bright | 0.950 | 0.990 | 0.400 (2) | 1, 2 |" in table(ROWS, figures)


def test_a_drawn_cyst_gets_its_label_where_it_is_kidney() -> None:
    labels = np.ones((20, 30, 30), np.uint8)
    labels[:, :15], labels[10:] = 2, 0
    label_cysts(labels, [Cyst((20.0, 30.0, 30.0), 10.0), Cyst((-50.0, 0.0, 0.0), 10.0)], (4.0, 2.0, 2.0), 3)
    z, y, x = np.meshgrid(np.arange(20) * 4.0, np.arange(30) * 2.0, np.arange(30) * 2.0, indexing="ij")
    ball = (z - 20) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 <= 100
    assert ((labels == 3) == (ball & (y >= 30) & (z < 40))).all()
    assert (labels == 3).any()


def options(*overrides: str) -> ShippedBench:
    found: ShippedBench = checked("bench_shipped", list(overrides))
    return found


def test_scans_are_carried_in_few_bytes_and_nothing_is_exported_untried(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        write_case(tmp_path / "scans", name, *kidney_pair(number))
    given = [f"images={tmp_path / 'scans'}", f"output={tmp_path / 'out'}"]
    assert measure(options(*given, "steps=[carry]")) == {}
    before, after = (read_volume(tmp_path / part / "one" / "imaging.nii.gz").array for part in ("scans", "out/scans"))
    assert np.abs(before.clip(-1000, 700) - after).max() <= 2
    with pytest.raises(KitsError, match=r"gate\.json: cannot be read; take the step gate first"):
        measure(options(*given, "steps=[export]"))
    with pytest.raises(KitsError, match="of two scans or more"):
        measure(options(f"images={tmp_path}", f"output={tmp_path / 'out'}", "steps=[carry]"))


@pytest.mark.slow
def test_the_whole_way_in_miniature_ends_before_an_export(tmp_path: Path) -> None:
    if not (SHARED / "real").is_dir():
        pytest.skip("no shared data beside this checkout")
    images = tmp_path / "images"
    for name in ("crlm_1004", "totalsegmentator_example"):
        images.mkdir(exist_ok=True)
        (images / name).symlink_to(SHARED / "real" / name, target_is_directory=True)
    drawn = "matrix=128 spacing_z=[5,6] spacing_xy=[2.5,3] tumor_radius=[12,30] real.cyst_label=3 real.regridded=1"
    small = "data.coarse_size=64 data.roi_rule.min_voxels=20"
    tiny = (
        "data.loader_workers=0 sampling.batch_size=1 sampling.patches_per_epoch=2 trainer.max_epochs=1 sampling.patch=[8,64,64]"
    )
    given = [f"images={images}", f"output={tmp_path / 'out'}", "workers=2", "every_phantom=2", "predict='device=cpu'"]
    given += [f"painting={{usual: 'seed=1 cases=2 variants=2 {drawn}', wide: 'seed=2 cases=1 variants=1 {drawn}'}}"]
    given += [f"prepare='data=kits23 data.coarse_z_mm=3 data.skip_invalid=true {small}'"]
    given += [f"training='{small} {tiny} trainer.check_val_every_n_epoch=1 trainer.accelerator=cpu'"]
    given += ["held_out='seed=100 variants=1 tumor_radius=[10,35] real.cyst_label=3 real.regridded=0'"]
    with pytest.raises(KitsError, match="short of the bar"):
        measure(options(*given))
    parts = json.loads((tmp_path / "out" / "cache" / "splits.json").read_text())["parts"]
    assert len(parts) >= 3
    assert not (tmp_path / "out" / "shipped").exists()
