"""The loader's benchmark: which cases it takes, and that all three loaders serve it."""

from pathlib import Path

import pytest

from kits.bench.loading import choose_cases, measure
from kits.config.composing import compose
from kits.data.index import Case


def test_cases_of_median_size_are_taken(tmp_path: Path) -> None:
    cases = []
    for number, size in enumerate((90, 10, 50, 40, 60, 1000)):
        image = tmp_path / f"{number}.nii.gz"
        image.write_bytes(b"0" * size)
        cases.append(Case(f"case_{number:05d}", image, image))
    assert [case.id for case in choose_cases(cases, 2)] == ["case_00002", "case_00004"]
    assert len(choose_cases(cases, 9)) == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_loaders_serve_the_small_tree(kits_tree: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchio")
    overrides = [f"root={kits_tree}", f"scratch={tmp_path}", "loading.cases=3", "loading.sampling.patch=[8,16,16]"]
    data = ["data.coarse_size=32", "data.roi_rule.min_voxels=100", "data.workers=1"]
    ratios = measure(compose("bench_data", [*overrides, *data]))
    assert set(ratios) == {"plain", "augmented"}
    assert all(ratio > 0 for ratio in ratios.values())
    assert not (tmp_path / "loading").exists()
