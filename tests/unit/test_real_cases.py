"""Cases made of a real CT: tumors set into drawn kidneys, with the scan's own noise and nothing else changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.phantoms import Phantom
from kits.core.errors import KitsError
from kits.core.labels import CYST, KIDNEY, TUMOR
from kits.io import read_labels, read_volume, write_labels, write_volume
from kits.painter.grain import grain_of
from kits.painter.lesions import Site, find_site, set_lesion
from kits.painter.loops import set_loops
from kits.painter.phases import PHASES, draw_contrast
from kits.painter.real_scan import RealScan, measure_contrast
from kits.painter.rephase import rephase
from kits.painter.trees import write_dataset
from kits.volume import Grid

SPACING = (4.0, 1.6, 1.6)
SHAPE = (30, 160, 160)
NOISE = 12.0
# Nothing of a case differs from its scan.
STILL = {"tumors": 0.0, "cysts": 0.0, "rephased": 0.0, "regridded": 0.0, "cropped": 0.0, "mirrored": 0.0, "filtered": 0.0}
STILL |= {
    "noise_hu": 0.0,
    "bowel": 0.0,
    "margin_mm": [500.0, 500.0],
    "size": 0.0,
    "turn_degrees": 0.0,
    "bend_mm": 0.0,
    "cyst_label": 1,
}
COARSE: dict[str, Any] = {"spacing_z": [3.0, 5.0], "spacing_xy": [1.6, 2.0]}
PLAIN = dict.fromkeys(PHASES, 0.0) | {"none": 1.0}
GRID = Grid((160, 160, 30), (1.6, 1.6, 4.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def drawn_body(kidney_hu: float = 180.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU int16 and labels of a body of fat with two kidneys, a spine and a wall of muscle, under noise of two pixels' width."""
    z, y, x = np.meshgrid(*(np.arange(n) * size for n, size in zip(SHAPE, SPACING, strict=True)), indexing="ij", sparse=True)
    radius = np.sqrt(((y - 128) / 95) ** 2 + ((x - 128) / 120) ** 2) + 0 * z
    hu = np.where(radius < 1, -100.0, -1000.0)
    hu[(radius > 0.78) & (radius < 0.88)] = 55
    labels = np.zeros(SHAPE, np.uint8)
    for middle in (72, 184):
        labels[((z - 60) / 45) ** 2 + ((y - 140) / 26) ** 2 + ((x - middle) / 24) ** 2 < 1] = KIDNEY
    hu[labels == KIDNEY] = kidney_hu
    hu[np.broadcast_to((y - 150) ** 2 + (x - 128) ** 2 < 18**2, SHAPE)] = 400
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (0, 0.8, 0.8))
    return np.rint(np.maximum(hu + NOISE / noise.std() * noise, -1024)).astype(np.int16), labels


def real_scan(kidney_hu: float = 180.0) -> RealScan:
    hu, labels = drawn_body(kidney_hu)
    return RealScan(hu.astype(np.float32), labels, SPACING)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, `one` with contrast and `two` without."""
    folder = tmp_path_factory.mktemp("real")
    for name, kidney_hu, seed in (("one", 180.0, 0), ("two", 32.0, 1)):
        hu, labels = drawn_body(kidney_hu, seed)
        (folder / name).mkdir()
        write_volume(folder / name / "imaging.nii.gz", hu, GRID)
        write_labels(folder / name / "segmentation.nii.gz", labels, GRID)
    return folder


def write(output: Path, **options: Any) -> list[str]:
    given = {key: str(value) if isinstance(value, Path) else value for key, value in {"output": output, **options}.items()}
    return write_dataset(parse(Phantom, {**compose("phantom", ["output=x"]), **given}))


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.nii.gz")}


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_variant_depends_on_seed_scan_and_number_alone(tree: Path, tmp_path: Path) -> None:
    assert write(tmp_path / "a", images=tree, variants=2, seed=5, **COARSE) == [f"case_{number:05d}" for number in range(4)]
    write(tmp_path / "b", images=tree, variants=2, seed=5, only=["two"], workers=2, **COARSE)
    first, second = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert len(set(first.values())) == 8
    for name in ("imaging.nii.gz", "segmentation.nii.gz"):
        assert second[f"case_00000/{name}"] == first[f"case_00002/{name}"]
        assert second[f"case_00001/{name}"] == first[f"case_00003/{name}"]


def test_drawn_cases_come_first_and_the_record_names_each_scan(tree: Path, tmp_path: Path) -> None:
    drawn = {"spacing_z": [9.0, 10.0], "spacing_xy": [5.4, 5.6], "matrix": 64}
    real = {**STILL, "tumors": 1.0}
    assert len(write(tmp_path, images=tree, variants=1, exclude=["one"], cases=1, real=real, **drawn)) == 2
    record = json.loads((tmp_path / "kits.json").read_text(encoding="utf-8"))
    assert "scan" not in record[0]["painted"]
    assert record[1]["case_id"] == "case_00001"
    assert record[1]["painted"]["scan"] == "two"
    assert record[1]["painted"]["phase"] == "none"
    assert record[1]["voxel_spacing"] == pytest.approx({"x_spacing": 1.6, "y_spacing": 1.6, "z_spacing": 4.0})


def test_without_lesions_a_case_is_its_scan(tree: Path, tmp_path: Path) -> None:
    write(tmp_path, images=tree, variants=1, only=["one"], real=STILL)
    np.testing.assert_array_equal(
        read_volume(tmp_path / "case_00000/imaging.nii.gz").array, read_volume(tree / "one/imaging.nii.gz").array
    )
    np.testing.assert_array_equal(
        read_labels(tmp_path / "case_00000/segmentation.nii.gz", allowed=(0, 1, 2)).array,
        read_labels(tree / "one/segmentation.nii.gz", allowed=(0, 1)).array,
    )


# --- lesions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_cyst_holds_water_and_the_scans_noise_and_what_is_far_from_it_is_kept(seed: int) -> None:
    scan, rng = real_scan(), np.random.default_rng(seed)
    hu, labels = scan.hu.copy(), scan.labels.copy()
    grain = grain_of(scan.hu, ndimage.binary_erosion(labels == KIDNEY, iterations=2))
    contrast = measure_contrast(scan, rng)
    site = find_site(rng, scan, 16.0, [])
    assert site is not None
    set_lesion(rng, scan, site, contrast, grain, fluid=True, label=CYST)
    away = [
        abs(np.arange(n) * size - c).reshape([-1 if k == axis else 1 for k in range(3)])
        for axis, (n, size, c) in enumerate(zip(SHAPE, SPACING, site.center, strict=True))
    ]
    ball = np.sqrt(sum(axis**2 for axis in away))
    inside = ndimage.binary_erosion(scan.labels == CYST, iterations=2)
    assert inside.sum() > 100
    assert scan.hu[inside].mean() < 95
    assert scan.hu[inside].std() == pytest.approx(NOISE, rel=0.25)
    assert (scan.labels == CYST).sum() * np.prod(SPACING) == pytest.approx(4.19 * site.radius**3, rel=0.45)
    assert ((scan.labels == CYST)[ball > 1.4 * site.radius + 3]).sum() == 0
    far = np.maximum(np.maximum(away[0], away[1]), away[2]) > (1.35 + 4 * 0.5) * site.radius + 6
    assert far.mean() > 0.5
    np.testing.assert_array_equal(scan.hu[far], hu[far])
    np.testing.assert_array_equal(scan.labels[far], labels[far])
    bone = hu > 300
    assert (scan.labels[bone] == 0).all()
    assert ((scan.labels == CYST)[:, :, :10]).sum() == 0
    assert abs(scan.hu[bone] - hu[bone]).max() < 1


def test_a_growth_at_the_surface_pushes_the_kidney_aside_and_leaves_its_noise() -> None:
    scan, rng = real_scan(), np.random.default_rng(2)
    labels = scan.labels.copy()
    contrast, grain = measure_contrast(scan, rng), grain_of(scan.hu, ndimage.binary_erosion(labels == KIDNEY, iterations=2))
    # On the outer face of the kidney on the left of the picture.
    set_lesion(rng, scan, Site((60.0, 140.0, 44.0), 15.0), contrast, grain, fluid=False, label=TUMOR)
    assert ((scan.labels == TUMOR) & (labels == 0)).any()
    assert ((scan.labels == KIDNEY) & (labels == 0)).any()
    moved = ndimage.binary_erosion(scan.labels == KIDNEY, iterations=2)
    assert scan.hu[moved].mean() == pytest.approx(180, abs=3)
    assert scan.hu[moved].std() == pytest.approx(NOISE, rel=0.15)


@pytest.mark.parametrize("phase", ["portal", "none"])
def test_tumors_are_as_bright_as_the_phase_allows(phase: str) -> None:
    scan = real_scan(180 if phase == "portal" else 32)
    rng = np.random.default_rng(3)
    contrast, grain = measure_contrast(scan, rng), grain_of(scan.hu, ndimage.binary_erosion(scan.labels == KIDNEY, iterations=2))
    assert contrast.phase == phase
    assert contrast["cortex"] == pytest.approx(180 if phase == "portal" else 32, abs=12)
    means = []
    for seed in range(6):
        painted, rng = real_scan(180 if phase == "portal" else 32), np.random.default_rng(seed)
        set_lesion(rng, painted, Site((60.0, 140.0, 60.0), 14.0), contrast, grain, fluid=False, label=TUMOR)
        means.append(float(painted.hu[ndimage.binary_erosion(painted.labels == TUMOR, iterations=2)].mean()))
    low, high = (0, 190) if phase == "portal" else (0, 60)
    assert low < min(means) < max(means) < high
    assert np.ptp(means) > (20 if phase == "portal" else 3)


def test_no_lesion_grows_where_bone_is() -> None:
    scan, rng = real_scan(), np.random.default_rng(0)
    for radius in (8.0, 20.0, 45.0):
        for _ in range(5):
            site = find_site(rng, scan, radius, [])
            assert site is not None
            assert site.radius <= radius
            z, y, x = (np.clip(round(c / size), 0, n - 1) for c, size, n in zip(site.center, SPACING, SHAPE, strict=True))
            assert scan.hu[z, y, x] < 300
    first = find_site(rng, scan, 20.0, [])
    assert first is not None
    second = find_site(rng, scan, 20.0, [first])
    assert second is not None
    assert np.linalg.norm(np.subtract(first.center, second.center)) > 0.9 * first.radius + second.radius


# --- noise -----------------------------------------------------------------------------------------------------------


def test_loops_of_bowel_lie_in_the_fat_before_the_kidneys_and_change_no_kidney() -> None:
    scan = real_scan()
    before, labels = scan.hu.copy(), scan.labels.copy()
    rng = np.random.default_rng(0)
    contrast = draw_contrast(rng, dict.fromkeys(PHASES, 0.0) | {"portal": 1.0})
    assert set_loops(rng, scan, contrast, grain_of(scan.hu, labels == KIDNEY), 12) >= 10
    np.testing.assert_array_equal(scan.labels, labels)
    changed = scan.hu != before
    kidney = abs(scan.hu - before)[labels == KIDNEY]  # a slice is the mean over its thickness: at its ends a loop shows in it
    assert (kidney > 3 * NOISE).mean() < 0.01
    y = np.nonzero(changed)[1]
    assert (y * SPACING[1]).max() <= 140 + 12 + SPACING[1]  # the kidneys' middle, and BEHIND_MM of it
    assert (before[changed] < 0).mean() > 0.9  # fat; the rest is the edge of a muscle
    loops = ndimage.binary_opening(scan.hu > 90) & changed
    assert 5 < loops.sum() * np.prod(SPACING) / 1000 < 300  # mL with contrast, of twelve loops


@pytest.mark.parametrize(("then", "filled"), [("excretory", True), ("portal", False)])
def test_urine_in_the_sinus_is_bright_in_the_excretory_phase_alone(then: str, filled: bool) -> None:
    scan = real_scan()
    z, y, x = np.meshgrid(*(np.arange(n) * size for n, size in zip(SHAPE, SPACING, strict=True)), indexing="ij", sparse=True)
    pelvis = ((z - 60) / 15) ** 2 + ((y - 140) / 8) ** 2 + ((x - 72) / 8) ** 2 < 1
    hu, labels = np.where(pelvis, 8.0, scan.hu).astype(np.float32), np.where(pelvis, 0, scan.labels).astype(np.uint8)
    scan = RealScan(hu, labels, SPACING)
    rng = np.random.default_rng(0)
    now, wanted = measure_contrast(scan, rng), draw_contrast(rng, dict.fromkeys(PHASES, 0.0) | {then: 1.0})
    rephase(rng, scan, now, wanted)
    core = ndimage.binary_erosion(pelvis, np.ones((1, 3, 3)))
    assert scan.hu[core].mean() == pytest.approx(wanted["collecting"] if filled else 8, rel=0.1, abs=8)


def test_the_grain_of_a_scan_has_its_level_and_its_correlation() -> None:
    scan = real_scan()
    core = ndimage.binary_erosion(scan.labels == KIDNEY, iterations=2)
    grain = grain_of(scan.hu, core)
    assert grain.hu == pytest.approx(NOISE, rel=0.15)
    assert grain.along_z == pytest.approx(0, abs=0.1)
    drawn = grain.draw(np.random.default_rng(0), (6, 80, 90))
    assert drawn.std() == pytest.approx(grain.hu, rel=0.05)
    flat = scan.hu[:, 60:80, 60:100] + 100
    for noise in (drawn, flat - flat.mean()):
        beside = float((noise[..., 1:] * noise[..., :-1]).mean() / noise.var())
        assert beside == pytest.approx(0.68, abs=0.1)


def test_a_scan_without_flat_tissue_gets_white_noise() -> None:
    grain = grain_of(np.full((2, 30, 30), -1000, np.float32), np.zeros((2, 30, 30), bool))
    assert grain.hu == 0
    assert not grain.draw(np.random.default_rng(0), (1, 8, 8)).any()


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "nowhere"}, "images=nowhere: no such folder"),
        ({"images": "."}, "images=.: no NAME/imaging.nii.gz"),
        ({"only": ["three"]}, "has no scan three; it has one, two"),
        ({"exclude": ["one", "two"]}, "only and exclude leave no scan"),
        ({"labels": "x"}, "paints into real CT"),
        ({"variants": 0}, "variants=0"),
        ({"real": {**STILL, "cyst_label": 2}}, "real.cyst_label=2"),
        ({"real": {**STILL, "margin_mm": [9.0, 3.0]}}, "real.margin_mm=[9.0,3.0]: give [low, high], 0 <= low <= high mm"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(
    options: dict[str, Any], message: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KitsError) as caught:
        write(tmp_path / "out", **{"images": tree, "variants": 1, **options})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_case_without_kidney_is_refused(tree: Path, tmp_path: Path) -> None:
    assert PHASES[0] == draw_contrast(np.random.default_rng(0), dict.fromkeys(PHASES, 0.0) | {"none": 1.0}).phase
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "empty" / "imaging.nii.gz").symlink_to(tree / "one" / "imaging.nii.gz")
    write_labels(tmp_path / "in" / "empty" / "segmentation.nii.gz", np.zeros(SHAPE, np.uint8), GRID)
    with pytest.raises(KitsError, match=r"no kidney \(label 1\) in it; leave it out with exclude=\[empty\]"):
        write(tmp_path / "out", images=tmp_path / "in", variants=1)


# --- variation -------------------------------------------------------------------------------------------------------


def variant(tree: Path, output: Path, scan: str = "one", **real: Any) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """HU, labels and spacing of one case of which only `real` is varied; spacing is drawn as [3, 3] and [2, 2]."""
    spacing = {"spacing_z": [3.0, 3.0], "spacing_xy": [2.0, 2.0]}
    write(
        output,
        images=tree,
        variants=1,
        only=[scan],
        real={**STILL, **real},
        **spacing,
        **({"phases": PLAIN} if real.get("rephased") else {}),
    )
    image = read_volume(output / "case_00000/imaging.nii.gz")
    return image.array, read_labels(output / "case_00000/segmentation.nii.gz", allowed=(0, 1, 2)).array, image.spacing


def test_a_mirrored_case_is_its_scan_mirrored(tree: Path, tmp_path: Path) -> None:
    hu, labels, _ = variant(tree, tmp_path, mirrored=1.0)
    np.testing.assert_array_equal(hu[..., ::-1], read_volume(tree / "one/imaging.nii.gz").array)
    np.testing.assert_array_equal(labels[..., ::-1], drawn_body()[1])


def test_another_spacing_keeps_volume_and_hu_of_the_kidneys(tree: Path, tmp_path: Path) -> None:
    hu, labels, spacing = variant(tree, tmp_path, regridded=1.0)
    assert spacing == pytest.approx((3.0, 2.0, 2.0))
    truth = drawn_body()[1]
    assert (labels == KIDNEY).sum() * np.prod(spacing) == pytest.approx(truth.sum() * np.prod(SPACING), rel=0.04)
    assert hu[ndimage.binary_erosion(labels == KIDNEY, iterations=2)].mean() == pytest.approx(180, abs=2)
    assert len(hu) == pytest.approx(29 * 4 / 3 + 1, abs=1)


def test_a_larger_and_bent_body_keeps_its_labels_on_its_kidneys(tree: Path, tmp_path: Path) -> None:
    hu, labels, _ = variant(tree, tmp_path, regridded=1.0, size=0.2, turn_degrees=15.0, bend_mm=4.0)
    core, shell = ndimage.binary_erosion(labels == KIDNEY, iterations=1), ndimage.binary_dilation(labels == KIDNEY, iterations=3)
    assert hu[core].mean() == pytest.approx(180, abs=5)
    assert hu[shell & ~ndimage.binary_dilation(labels == KIDNEY, iterations=2)].mean() < -40


def test_a_cropped_scan_ends_within_the_kidneys_and_a_margin_is_in_mm(tree: Path, tmp_path: Path) -> None:
    _, labels, _ = variant(tree, tmp_path / "a", cropped=1.0)
    assert labels[0].any() != labels[-1].any()
    planes = np.flatnonzero(drawn_body()[1].any(axis=(1, 2)))
    hu, _, _ = variant(tree, tmp_path / "b", margin_mm=[8.0, 8.0])
    np.testing.assert_array_equal(hu, drawn_body()[0][planes[0] - 2 : planes[-1] + 3])


def test_a_scan_without_its_contrast_has_plain_kidneys_its_bones_and_its_noise(tree: Path, tmp_path: Path) -> None:
    before, truth = drawn_body()
    hu, labels, _ = variant(tree, tmp_path, rephased=1.0)
    np.testing.assert_array_equal(labels, truth)
    core = ndimage.binary_erosion(truth == KIDNEY, iterations=2)
    assert 20 < hu[core].mean() < 50
    assert hu[core].std() == pytest.approx(NOISE, rel=0.15)
    bone = ndimage.binary_erosion(before > 340, np.ones((1, 3, 3)))
    assert bone.sum() > 5000
    np.testing.assert_array_equal(hu[bone], before[bone])
    fat = ndimage.binary_erosion(before < -70, np.ones((1, 3, 3)), iterations=2) & ~ndimage.binary_dilation(truth, iterations=3)
    assert fat.sum() > 50_000
    np.testing.assert_array_equal(hu[fat], before[fat])


def test_added_noise_is_of_the_scans_own_grain(tree: Path, tmp_path: Path) -> None:
    hu, _, _ = variant(tree, tmp_path, noise_hu=40.0)
    added = hu.astype(float) - drawn_body()[0]
    assert 3 < added.std() < 41
    assert float((added[..., 1:] * added[..., :-1]).mean() / added.var()) == pytest.approx(0.68, abs=0.1)
