"""It may say no: what is no abdominal CT is told without a look at the networks, and ordinary CT is not."""

from pathlib import Path

import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.data.scans import find_inputs
from kits.io import read_labels, read_volume
from kits.volume import doubts
from kits.volume.hu import counts_of, oddities
from kits.volume.parts import Part
from kits.volume.rois import Box
from tests.conftest import SHARED, kidney_pair
from tests.dicoms import write_series
from tests.predicting import command

SPACING = (5.0, 4.0, 4.0)


def torso(lungs: int, abdomen: int) -> np.ndarray:
    """HU (z, y, x) of slices with lungs above slices without, a body of 320 x 240 mm on a table."""
    y, x = np.meshgrid(np.arange(-40, 40) * 4.0, np.arange(-50, 50) * 4.0, indexing="ij")
    body = np.where((x / 160) ** 2 + (y / 120) ** 2 < 1, 40, -1000)
    body[74:76, 10:90] = 100
    chest = body.copy()
    for side in (-70, 70):
        chest[((x - side) / 55) ** 2 + (y / 80) ** 2 < 1] = -850
    return np.array([*[body] * abdomen, *[chest] * lungs], np.int16)


@pytest.mark.parametrize(
    ("lungs", "abdomen", "told"), [(40, 0, True), (30, 12, True), (10, 30, False), (60, 40, False), (0, 9, False)]
)
def test_a_scan_that_ends_below_the_lungs_is_told(lungs: int, abdomen: int, told: bool) -> None:
    found = doubts.doubt_chest(torso(lungs, abdomen), SPACING)
    assert [f"chest only: {abdomen * 5} mm" in one for one in found] == [True] * told


def test_gas_beside_and_within_an_abdomen_is_no_lung() -> None:
    hu = torso(0, 40)
    hu[:, 15:25, 40:60] = -900  # 3 % of the slice
    assert doubts.doubt_chest(hu, SPACING) == []
    assert doubts.doubt_chest(np.full((9, 40, 40), -1000, np.int16), SPACING) == []


def of_magnets(hu: np.ndarray, seed: int) -> np.ndarray:
    """Turn CT into what MR looks like: air and bone dark, tissues in an order of their own, uneven, noisy, never negative."""
    rng = np.random.default_rng(seed)
    corners = [-1024, -200, -100, 0, 40, 150, 400, 2000]
    values = [0, rng.uniform(5, 40), *rng.uniform(200, 1200, 5), rng.uniform(0, 80)]
    slope = np.linspace(rng.uniform(0.6, 1), rng.uniform(1, 1.5), hu.shape[2])
    return np.abs(np.interp(hu, corners, values) * slope + rng.normal(0, 12, hu.shape)).astype(np.int16)


@pytest.mark.parametrize("seed", range(10))
def test_mr_is_no_ct(seed: int) -> None:
    for hu in (kidney_pair(seed)[0], torso(10, 30)):
        assert any(one.serious for one in oddities(counts_of(of_magnets(hu, seed))))
        assert not any(one.serious for one in oddities(counts_of(hu)))


@pytest.mark.parametrize("modality", ["MR", "PT", "US"])
def test_a_series_of_another_modality_is_left_out_and_named(tmp_path: Path, modality: str) -> None:
    write_series(tmp_path / "series", kidney_pair(0)[0], Modality=modality, SOPClassUID=None)
    with pytest.raises(KitsError) as refused:
        find_inputs(tmp_path)
    assert "\n" not in str(refused.value)
    assert modality in str(refused.value)


def test_regions_of_hardly_any_parenchyma_are_doubted() -> None:
    """Hips and bowel that pass for kidneys are tumor for the most part."""
    box = Box.of((5, 5, 5), (20, 20, 20))
    left, right, small = (
        Part("kidney", side, 90.0, (9, 9, 9), box, ml) for side, ml in (("left", 120), ("right", 2), ("left", 16))
    )
    told = "hardly any kidney: 18 mL in all without the tumors; is it a scan of the abdomen?"
    assert told in doubts.doubt_parts([small, right], (30, 30, 30))
    assert not any(doubt.startswith("hardly") for doubt in doubts.doubt_parts([left, right], (30, 30, 30)))


@pytest.mark.slow
def test_real_and_painted_scans_are_told_where_they_should_be_and_only_there(tmp_path: Path) -> None:
    """Whole, from the kidneys down, and the pieces above them: at least nine of ten right; with the real scans where they are."""
    keys = ["cases=3", "seed=5", "matrix=192", "spacing_z=[4,5]", "spacing_xy=[1.9,2.1]", "margin_mm=[220,250]"]
    assert command(f"output={tmp_path}", *keys, module="phantom").returncode == 0
    right = []
    for path in [*sorted(SHARED.glob("real/*/imaging.nii.gz")), *sorted(tmp_path.glob("*/imaging.nii.gz"))]:
        volume = read_volume(path)
        hu, labels = volume.array, read_labels(path.parent / "segmentation.nii.gz", allowed=range(4)).array
        top = int(np.flatnonzero((labels > 0).any(axis=(1, 2))).max()) + 1
        pieces = [(hu, False), (hu[:top], False), (hu[top:], True), (hu[top + round(30 / volume.spacing[0]) :], True)]
        lungs = bool(doubts.doubt_chest(hu[-4:], volume.spacing))
        right += [bool(doubts.doubt_chest(piece, volume.spacing)) == told for piece, told in pieces if lungs or not told]
        right += [
            any(one.serious for one in oddities(counts_of(of_magnets(hu, 0)))),
            not any(one.serious for one in oddities(counts_of(hu))),
        ]
    print(f"{sum(right)} of {len(right)} right")
    assert sum(right) >= 0.9 * len(right)
