"""The phantom: layout of KiTS19, reproducible bytes, plausible HU, labels kept, mistakes in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.phantoms import Phantom
from kits.core.errors import KitsError
from kits.painter.fields import Lattice, resample, signed_distance, smooth_noise
from kits.painter.frame import KITS19_DIRECTION, find_body
from kits.painter.phases import PHASES, draw_contrast
from kits.painter.shapes import draw_labels, draw_radius
from kits.painter.trees import write_dataset

# A body of usual size on few voxels: 64 x 64 pixels of 5.5 mm.
SMALL: dict[str, Any] = {"spacing_z": [9.0, 10.0], "spacing_xy": [5.4, 5.6], "matrix": 64}


def write(output: Path, **options: Any) -> list[str]:
    given = {"output": str(output), "cases": 1, "seed": 3, **SMALL, **options}
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    return write_dataset(parse(Phantom, {**compose("phantom", ["output=x"]), **given}))


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.nii.gz")}


def load(path: Path) -> nib.Nifti1Image:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    assert write(folder, cases=3) == ["case_00000", "case_00001", "case_00002"]
    return folder


def pair(folder: Path, case_id: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    return load(folder / case_id / "imaging.nii.gz"), load(folder / case_id / "segmentation.nii.gz")


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_case_depends_on_seed_and_id_alone_not_on_the_number_of_cases_or_workers(drawn: Path, tmp_path: Path) -> None:
    write(tmp_path, cases=2, workers=2)
    again = digests(tmp_path)
    assert len(again) == 4
    assert again.items() <= digests(drawn).items()


def test_another_seed_gives_another_picture(drawn: Path, tmp_path: Path) -> None:
    write(tmp_path, seed=4)
    assert not set(digests(tmp_path).values()) & set(digests(drawn).values())


def test_files_have_the_slice_first_affine_and_types_of_kits19(drawn: Path) -> None:
    image, labels = pair(drawn, "case_00001")
    z, y, x = image.header.get_zooms()
    assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
    np.testing.assert_allclose(image.affine, [[0, 0, -x, 0], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1]], atol=1e-5)
    np.testing.assert_array_equal(image.affine, labels.affine)
    assert image.shape == labels.shape
    assert image.shape[1:] == (64, 64)
    assert image.get_data_dtype() == np.int16
    assert labels.get_data_dtype() == np.uint8
    assert 9 <= z <= 10
    assert 5.4 <= x == y <= 5.6


def test_the_folder_holds_cases_and_record_and_no_leftovers(drawn: Path) -> None:
    record = json.loads((drawn / "kits.json").read_text(encoding="utf-8"))
    assert [entry["case_id"] for entry in record] == ["case_00000", "case_00001", "case_00002"]
    image, _ = pair(drawn, "case_00002")
    spacing = record[2]["voxel_spacing"]
    np.testing.assert_allclose([spacing[f"{axis}_spacing"] for axis in "zyx"], image.header.get_zooms(), rtol=1e-6)
    assert sorted(path.name for path in drawn.iterdir()) == ["case_00000", "case_00001", "case_00002", "kits.json"]


# --- pictures --------------------------------------------------------------------------------------------------------


def test_painting_replaces_painted_cases_alone(tmp_path: Path) -> None:
    write(tmp_path / "own", cases=2)
    write(tmp_path / "own", cases=1, seed=4)
    assert [record["case_id"] for record in json.loads((tmp_path / "own/kits.json").read_text())] == ["case_00000", "case_00001"]
    write(tmp_path / "own", cases=2)  # the one that was left out the last time, too
    for name, content in (
        ("kits.json", '[{"case_id": "case_00000", "age_at_nephrectomy": 49}]'),
        ("case_00000/imaging.nii.gz", "CT"),
    ):
        file = tmp_path / name.replace("/", "-") / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
        with pytest.raises(
            KitsError, match=rf"^output=.*: holds {name.split('/')[0]} already, which is not painted by this command"
        ):
            write(tmp_path / name.replace("/", "-"), cases=1)
        assert file.read_text() == content


def test_an_interrupted_painting_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kits.painter.trees.map_cases", lambda work, calls, **_: [work(*calls[0]), 1 / 0])
        with pytest.raises(ZeroDivisionError):
            write(tmp_path, cases=2)
    assert (tmp_path / "case_00000").is_dir()
    assert write(tmp_path, cases=2) == ["case_00000", "case_00001"]


def test_hu_are_those_of_a_body_in_air_with_padding_outside_the_field_of_view(drawn: Path) -> None:
    for case_id in ("case_00000", "case_00001", "case_00002"):
        image, labels = pair(drawn, case_id)
        hu, label = np.asarray(image.dataobj), np.asarray(labels.dataobj)
        assert set(np.unique(label)) == {0, 1, 2}
        assert hu[:, 0, 0].max() <= -1024
        middle = hu[len(hu) // 2]
        counts, edges = np.histogram(middle[(middle > -200) & (middle < 0)], bins=20)
        peak = edges[counts.argmax()]
        assert -140 < peak < -60
        assert hu.max() > 250
        core = ndimage.binary_erosion(label == 1)
        assert 0 < np.median(hu[core if core.any() else label == 1]) < 300
        assert -20 < np.median(hu[label == 2]) < 300


def test_the_liver_is_on_the_right_and_the_spine_behind(drawn: Path) -> None:
    right, left, front, behind = [], [], [], []
    for case_id in ("case_00000", "case_00001", "case_00002"):
        image, labels = pair(drawn, case_id)
        hu, label = np.asarray(image.dataobj), np.asarray(labels.dataobj)
        # Index 0 is the top, rows run to the back, columns to the patient's left.
        above = hu[: int(np.flatnonzero(label.any(axis=(1, 2)))[0]) + 2]
        soft = (above > 20) & (above < 200)
        right.append(soft[:, 8:32, 8:32].mean())
        left.append(soft[:, 8:32, 32:56].mean())
        front.append((hu[:, :32, 22:42] > 150).mean())
        behind.append((hu[:, 32:, 22:42] > 150).mean())
    assert np.mean(right) > np.mean(left)
    assert np.mean(behind) > 2 * np.mean(front)


def test_drawn_kidneys_have_the_volume_of_kidneys_and_lie_clear_of_the_ends() -> None:
    volumes, tumors = [], []
    for seed in range(12):
        labels, _ = draw_labels(np.random.default_rng(seed), 5.0, 2.0, 200, (6, 50), (40, 60))
        assert not labels[0].any()
        assert not labels[-1].any()
        volumes.append((labels == 1).sum() * 0.02)
        tumors.append((labels == 2).sum() * 0.02)
    assert min(volumes) > 60
    assert max(volumes) < 600
    assert min(tumors) > 0.5
    assert max(tumors) > 20 * min(tumors)


def test_tumors_keep_to_their_range_and_phases_to_their_weights() -> None:
    rng = np.random.default_rng(0)
    radii = [draw_radius(rng, (6.0, 50.0)) for _ in range(300)]
    assert 6 <= min(radii) < 10
    assert 35 < max(radii) <= 50
    weights = {**dict.fromkeys(PHASES, 0.0), "portal": 1.0, "excretory": 3.0}
    drawn = [draw_contrast(rng, weights).phase for _ in range(300)]
    assert set(drawn) == {"portal", "excretory"}
    assert 190 < drawn.count("excretory") < 260


# --- painting on given labels ----------------------------------------------------------------------------------------


def test_given_labels_and_geometry_are_kept(drawn: Path, tmp_path: Path) -> None:
    _, source = pair(drawn, "case_00000")
    affine = source.affine.copy()
    affine[:3, 3] = [12.5, -30, 7]
    folder = tmp_path / "source" / "case_00077"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj).astype(np.uint16), affine), folder / "segmentation.nii.gz")

    assert write(tmp_path / "out", labels=tmp_path / "source", cases=None) == ["case_00077"]
    image, labels = pair(tmp_path / "out", "case_00077")
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.asarray(source.dataobj))
    for written in (image, labels):
        np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    hu, label = np.asarray(image.dataobj).astype(float), np.asarray(labels.dataobj)
    shell = ndimage.binary_dilation(label > 0, iterations=2) & (label == 0)
    assert np.median(hu[label > 0]) > np.median(hu[shell]) + 10


def test_thinned_label_maps_are_every_nth_voxel_of_the_given_ones_in_the_right_place(drawn: Path, tmp_path: Path) -> None:
    _, source = pair(drawn, "case_00000")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "case_00000").symlink_to(drawn / "case_00000")
    z, xy = (float(step) for step in source.header.get_zooms()[:2])
    write(tmp_path / "out", labels=tmp_path / "source", cases=None, thin_mm=[2.2 * z, 3 * xy])
    _, labels = pair(tmp_path / "out", "case_00000")
    # Slices are counted downwards in both files and upwards here.
    upwards, thin = (np.asarray(image.dataobj)[::-1] for image in (source, labels))
    np.testing.assert_array_equal(thin, upwards[1::2, 1::3, 1::3])
    np.testing.assert_allclose(labels.header.get_zooms(), (2 * z, 3 * xy, 3 * xy), rtol=1e-5)


def test_the_order_of_axes_in_the_file_does_not_turn_the_body(tmp_path: Path) -> None:
    rng_labels, _ = draw_labels(np.random.default_rng(1), 10.0, 5.5, 64, (6, 50), (40, 60))
    pictures = []
    for name, direction in (("kits19", KITS19_DIRECTION), ("lps", (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))):
        array = rng_labels if name == "lps" else np.ascontiguousarray(rng_labels[::-1].transpose(2, 1, 0))
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((5.5, 5.5, 10.0) if name == "lps" else (10.0, 5.5, 5.5))
        image.SetDirection(direction)
        folder = tmp_path / name / "case_00001"
        folder.mkdir(parents=True)
        sitk.WriteImage(image, str(folder / "segmentation.nii.gz"))
        write(tmp_path / f"{name}_out", labels=tmp_path / name)
        painted = sitk.ReadImage(str(tmp_path / f"{name}_out" / "case_00001" / "imaging.nii.gz"))
        pictures.append(sitk.GetArrayFromImage(sitk.DICOMOrient(painted, "LPS")))
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_a_map_without_any_kidney_is_painted_too(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "case_00001"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((12, 40, 40), np.uint8), np.diag([-8, -8, 10, 1])), folder / "segmentation.nii.gz")
    assert write(tmp_path / "out", labels=tmp_path / "source") == ["case_00001"]


@pytest.mark.slow
def test_a_real_label_map_is_kept_voxel_by_voxel(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "kits19" / "case_00110"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / source.name).symlink_to(source)
    write(tmp_path / "out", labels=tmp_path / "source")
    real = load(source / "segmentation.nii.gz")
    image, labels = pair(tmp_path / "out", source.name)
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.asarray(real.dataobj))
    np.testing.assert_allclose(image.affine, real.affine, atol=1e-6)


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": 0}, "cases=0"),
        ({"cases": None}, "cases"),
        ({"cases": "two"}, "cases=two: give a whole number of 1 or more"),
        ({"workers": 0}, "workers=0"),
        ({"seed": -1}, "seed=-1"),
        ({"matrix": 8}, "matrix=8"),
        (
            {"matrix": 44, "spacing_xy": [5.4, 5.6]},
            "matrix=44: pixels of 5.4 mm are 238 mm, two kidneys need 250; give matrix=47 or",
        ),
        ({"spacing_z": [5.0, 0.5]}, "spacing_z"),
        ({"spacing_xy": [0.0, 1.0]}, "spacing_xy"),
        ({"spacing_xy": [0.7]}, "spacing_xy=[0.7]: give [low, high], 0.1 <= low <= high <= 20 mm"),
        ({"tumor_radius": [30, 6]}, "tumor_radius"),
        ({"phases": dict.fromkeys(PHASES, 0.0)}, "phases"),
        ({"phases": {"portal": 1.0}}, "phases.none: no value given; give a number of at least 0"),
        ({"phases": 3}, "phases=3"),
        ({"labels": "nowhere"}, "labels=nowhere"),
        ({"labels": "."}, "segmentation.nii.gz"),
        ({"thin_mm": [4, 1.6]}, "labels=DIR"),
        ({"labels": ".", "thin_mm": [4]}, "thin_mm=[4]: give mm between slices and between pixels"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KitsError) as caught:
        write(tmp_path / "out", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_output_folder_has_to_be_named() -> None:
    with pytest.raises(KitsError, match="output"):
        compose("phantom", ["cases=2"])
    assert compose("phantom", ["output=x", "cases=2"])["spacing_z"] == [0.5, 5.0]


# --- tools -----------------------------------------------------------------------------------------------------------


def test_noise_has_unit_deviation_whatever_its_cell() -> None:
    lattice = Lattice.cover((0, 0, 0), (300, 300, 300), (5, 5, 5))
    noise = smooth_noise(np.random.default_rng(0), lattice, (17, 12, 9))
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.06)
    assert noise.mean() == pytest.approx(0, abs=0.06)


def test_interpolation_keeps_a_linear_field_and_the_values_on_the_points() -> None:
    coarse = Lattice.cover((0, 0, 0), (40, 40, 40), (4, 5, 8))
    fine = Lattice.cover((8, 8, 8), (32, 32, 32), (1, 1, 1))
    field = coarse.z[:, None, None] + 2 * coarse.y[:, None] - 3 * coarse.x
    expected = fine.z[:, None, None] + 2 * fine.y[:, None] - 3 * fine.x
    np.testing.assert_allclose(resample(field, coarse, fine), expected, atol=1e-3)
    np.testing.assert_allclose(resample(field, coarse, coarse), field, atol=1e-3)


def test_signed_distance_is_negative_inside_and_in_mm() -> None:
    mask = np.zeros((1, 1, 9), bool)
    mask[..., 3:6] = True
    np.testing.assert_array_equal(signed_distance(mask, (1, 1, 2))[0, 0], [6, 4, 2, -2, -4, -2, 2, 4, 6])
    assert signed_distance(mask & False, (1, 1, 1)).min() > 100


@pytest.mark.parametrize("keep", [(-1, 1), (-1,), (1,)])
def test_the_spine_is_found_between_or_beside_the_kidneys(keep: tuple[int, ...]) -> None:
    lattice = Lattice.cover((0, 0, 0), (200, 300, 400), (5, 5, 5))
    labels = np.zeros(lattice.shape, np.uint8)
    for side in keep:
        middle = 200 + side * 70
        ball = (
            ((lattice.z[:, None, None] - 100) / 55) ** 2
            + ((lattice.y[:, None] - 170) / 28) ** 2
            + ((lattice.x - middle) / 28) ** 2
        )
        labels[ball < 1] = 1
    body = find_body(labels, lattice, (200, 300, 400), np.random.default_rng(0))
    assert body.origin[2] == pytest.approx(200, abs=15)
    assert body.origin[0] == pytest.approx(100, abs=5)
    assert tuple(sorted(kidney.side for kidney in body.kidneys)) == keep
    assert body.half_width > 110
