"""The clinical read-out against bodies whose numbers are known, and what people draw wrong."""

from dataclasses import asdict
from itertools import permutations, product
from math import pi
from pathlib import Path

import nibabel
import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.io import read_labels
from kits.readout import read_out
from kits.readout.cohort import finished, measure_map, write_tables
from kits.readout.cubes import Cubes
from kits.readout.maps import LabelMap, find_maps
from kits.readout.nephrometry import Position, padua, renal
from kits.readout.sheet import sheet
from kits.readout.sinus import find_sinus
from kits.readout.slice_areas import integrated_ml

HALF = (50.0, 26.0, 28.0)  # mm (z, y, x) of the left kidney at x = +60 mm


def body(
    radius: float,
    offset: tuple[float, float, float],
    spacing: tuple[float, float, float] = (2.0, 1.0, 1.0),
    kind: str = "ellipsoid",
    notch: bool = True,
) -> np.ndarray:
    """Two kidneys at x = -60 and +60 mm, a ball at `offset` (z, y, x) mm from the left one's center."""
    axes = [np.arange(-h, h + s / 2, s) for h, s in zip((80, 60, 120), spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    labels = np.zeros(z.shape, np.uint8)
    for side in (-1, 1):
        u, v, w = z / HALF[0], y / HALF[1], (x - 60 * side) / HALF[2]
        inside = u**2 + v**2 + w**2 <= 1 if kind == "ellipsoid" else np.maximum(np.maximum(abs(u), abs(v)), abs(w)) <= 1
        medial = side * (x - 60 * side)
        hollow = (abs(z) < 16) & (abs(y) < 8) & (medial < -8) if notch else np.zeros_like(inside)
        labels[inside & ~hollow] = 1
    at = (z - offset[0]) ** 2 + (y - offset[1]) ** 2 + (x - 60 - offset[2]) ** 2
    labels[at <= radius**2] = 2
    return labels


@pytest.mark.parametrize("spacing", [(1.0, 0.8, 0.8), (3.0, 0.8, 0.8)])
@pytest.mark.parametrize(("radius", "outward", "exophytic"), [(15.0, 0.0, None), (12.0, -14.0, 0.0), (20.0, 10.0, None)])
def test_a_ball_on_an_ellipsoid(
    spacing: tuple[float, float, float], radius: float, outward: float, exophytic: float | None
) -> None:
    labels = body(radius, (0.0, 0.0, HALF[2] + outward), spacing)
    (tumor,) = read_out(labels, spacing).tumors
    points = np.random.default_rng(0).normal(size=(200_000, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    ball = points * radius * np.random.default_rng(1).uniform(size=(len(points), 1)) ** (1 / 3)

    def share_in(of: np.ndarray) -> float:
        return float(((((of + np.array([0, 0, HALF[2] + outward])) / HALF) ** 2).sum(axis=1) <= 1).mean())

    assert tumor.volume_ml == pytest.approx(4 / 3 * pi * radius**3 / 1000, rel=0.02)
    assert tumor.axial_mm == pytest.approx(2 * radius, abs=0.5 * spacing[1])
    assert tumor.short_mm == pytest.approx(2 * radius, abs=2 * spacing[1])
    assert tumor.diameter_3d_mm == pytest.approx(2 * radius, abs=0.5 * spacing[1])
    assert tumor.sphericity == pytest.approx(1, abs=0.03)
    assert tumor.exophytic_share == pytest.approx(1 - share_in(ball) if exophytic is None else exophytic, abs=0.03)
    assert tumor.contact_mm2 == pytest.approx(4 * pi * radius**2 * share_in(points * radius), rel=0.05)
    assert (tumor.side, tumor.face, tumor.medial) == ("left", "neither", False)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])
def test_an_integrated_volume_does_not_depend_on_where_thick_slices_lie(phase: float, axis: int) -> None:
    radii, step = np.array([12.0, 15.0, 13.0]), np.array([0.7, 0.7, 0.7])
    step[axis] = 5.0
    axes = [np.arange(-20 + phase * s, 20, s) / r for s, r in zip(step, radii, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    found = integrated_ml(z**2 + y**2 + x**2 <= 1, (step[0], step[1], step[2]))
    assert found == pytest.approx(4 / 3 * pi * radii.prod() / 1000, rel=0.007)


def test_the_volume_of_what_is_blunt_or_thin_is_that_of_its_voxels() -> None:
    block = np.zeros((9, 12, 12), bool)
    block[2:7, 3:9, 3:9] = True
    for slices in (5, 2, 1):
        part = block.copy()
        part[2 + slices :] = False
        assert integrated_ml(part, (5.0, 1.0, 1.0)) == pytest.approx(slices * 36 * 5 / 1000)


def test_contact_in_thick_slices_is_read_from_the_voxels() -> None:
    spacing = (5.0, 0.7, 0.7)
    (tumor,) = read_out(body(16.0, (1.3, 0.0, HALF[2] - 6), spacing), spacing).tumors
    points = np.random.default_rng(0).normal(size=(200_000, 3))
    points *= 16 / np.linalg.norm(points, axis=1)[:, None]
    inside = ((((points + np.array([1.3, 0, HALF[2] - 6])) / HALF) ** 2).sum(axis=1) <= 1).mean()
    assert tumor.contact_mm2 == pytest.approx(4 * pi * 16**2 * inside, rel=0.03)


def test_a_ball_in_the_face_of_a_box() -> None:
    spacing = (1.0, 0.8, 0.8)
    (tumor,) = read_out(body(12.0, (20.0, -HALF[1], 6.0), spacing, kind="box", notch=False), spacing).tumors
    assert tumor.exophytic_share == pytest.approx(0.5, abs=0.03)
    assert tumor.contact_mm2 == pytest.approx(2 * pi * 12**2, rel=0.05)
    assert (tumor.face, tumor.renal.E.points) == ("anterior", 1)


@pytest.mark.parametrize(
    ("offset", "face", "letter"), [(-24.0, "anterior", "a"), (24.0, "posterior", "p"), (0.0, "neither", "x")]
)
def test_the_face_is_the_patients(offset: float, face: str, letter: str) -> None:
    (tumor,) = read_out(body(8.0, (0.0, offset, 12.0)), (2.0, 1.0, 1.0)).tumors
    assert (tumor.face, tumor.renal.A.value) == (face, letter)


@pytest.mark.parametrize(("height", "points"), [(45.0, 1), (18.0, 2), (4.0, 3)])
def test_polar_lines(height: float, points: int) -> None:
    reading = read_out(body(8.0, (height, 0.0, 20.0)), (2.0, 1.0, 1.0))
    (left,) = [kidney for kidney in reading.kidneys if kidney.side == "left"]
    assert left.polar_lines_mm == pytest.approx([80 - 16, 80 + 16], abs=3)
    assert reading.tumors[0].renal.L.points == points


def test_distances() -> None:
    (tumor,) = read_out(body(6.0, (0.0, 0.0, 8.0), (1.0, 0.8, 0.8)), (1.0, 0.8, 0.8)).tumors
    assert tumor.sinus_mm == pytest.approx(8 - 6 + 8, abs=1)  # the notch ends 8 mm medial of the center
    assert tumor.outline_mm == pytest.approx(13, abs=1)  # in the plane the kidney is nearly a disk of 27 mm
    assert tumor.c_index == pytest.approx(8 / 6, abs=0.35)
    near = 4 / 3 * pi * (11**3 - 6**3) / 1000
    assert tumor.parenchyma_5mm_ml == pytest.approx(near, rel=0.06)


def test_kidneys_of_a_case() -> None:
    spacing = (2.0, 1.0, 1.0)
    reading = read_out(body(10.0, (0.0, 0.0, 30.0), spacing), spacing)
    right, left = reading.kidneys
    whole = 4 / 3 * pi * np.prod(HALF) / 1000
    assert (right.side, left.side, right.present, left.present) == ("right", "left", True, True)
    assert right.tumor_ml == 0
    assert right.parenchyma_ml is not None
    assert right.parenchyma_ml + (right.sinus_ml or 0) == pytest.approx(whole, rel=0.05)
    assert right.length_mm == pytest.approx(2 * HALF[0], abs=2.5)
    assert (right.share_of_parenchyma or 0) + (left.share_of_parenchyma or 0) == pytest.approx(1)
    assert (right.flags, left.flags, reading.flags) == ([], [], [])


def test_a_single_kidney_keeps_its_side() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    labels[:, :, : labels.shape[2] // 2] = 0
    right, left = read_out(labels, (2.0, 1.0, 1.0)).kidneys
    assert (right.present, left.present) == (False, True)
    assert left.flags == ["single: no other kidney in the label map"]
    assert right.flags == ["absent, or outside of the image"]


def test_with_a_ct_the_bodys_middle_decides_the_side() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    labels[:, :, : labels.shape[2] // 2] = 0  # the left kidney alone, at column 180 of 241
    labels = np.pad(labels, ((0, 0), (0, 0), (0, 160)))  # in an image whose middle is at column 200
    hu = np.full(labels.shape, -1000, np.int16)
    hu[:, 10:-10, 5:236] = 40  # the body
    hu[:, -4:] = 0  # the table, which is wider
    sides = [[kidney.present for kidney in read_out(labels, (2.0, 1.0, 1.0), of).kidneys] for of in (None, hu)]
    assert sides == [[True, False], [False, True]]


def test_a_horseshoe_is_parted_at_its_bridge() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    z, y, _ = labels.shape
    middle = labels[z // 2 - 18 : z // 2 - 10, y // 2 - 6 : y // 2 + 6, 60:180]
    middle[middle == 0] = 1
    right, left = read_out(labels, (2.0, 1.0, 1.0)).kidneys
    assert right.present
    assert left.present
    assert left.parenchyma_ml == pytest.approx(right.parenchyma_ml, rel=0.1)
    assert right.flags == left.flags == ["joined: both kidneys are one region, by parenchyma"]


def test_a_kidney_whose_middle_a_tumor_takes_is_one() -> None:
    labels = np.zeros((50, 50, 160), np.uint8)
    labels[10:40, 10:40, 40:110] = 1  # lies across
    z, y, x = np.ogrid[:50, :50, :160]
    labels[(z - 25) ** 2 + (y - 25) ** 2 + (x - 75) ** 2 <= 18**2] = 2
    reading = read_out(labels, (1.0, 1.0, 1.0))
    assert [kidney.present for kidney in reading.kidneys] == [True, False]
    assert reading.kidneys[0].parenchyma_ml == pytest.approx(np.count_nonzero(labels == 1) / 1000)


def test_a_kidney_that_is_all_tumor_has_no_outline() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    half = labels[:, :, labels.shape[2] // 2 :]
    half[half == 1] = 2
    reading = read_out(labels, (2.0, 1.0, 1.0))
    (tumor,) = reading.tumors
    assert any(flag.startswith("no parenchyma") for flag in tumor.flags)
    assert (tumor.exophytic_share, tumor.sinus_mm, tumor.renal.total) == (None, None, None)
    assert tumor.renal.R.points == 2


def test_specks_and_the_border_are_flagged() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    labels[2:4, 2, ::10] = 2
    cut = labels[labels.shape[0] // 2 :]
    reading = read_out(cut, (2.0, 1.0, 1.0))
    assert reading.kidneys[1].flags == ["cut: it reaches the first slice of the image"]
    whole = read_out(labels, (2.0, 1.0, 1.0))
    assert whole.flags[0].startswith("specks: ")
    assert len(whole.tumors) == 1


def test_noise_has_volumes_and_no_shape() -> None:
    labels = np.zeros((30, 60, 80), np.uint8)
    noise = np.random.default_rng(0).uniform(size=(20, 40, 60)) < 0.25  # as untrained networks draw
    labels[5:25, 10:50, 10:70][noise] = 1
    labels[5:25, 10:50, 40:70][noise[:, :, 30:]] = 2
    reading = read_out(labels, (2.0, 0.7, 0.7))
    assert reading.tumors
    for tumor in reading.tumors:
        assert tumor.volume_ml > 0
        assert tumor.axial_mm > 0
        assert (tumor.sphericity, tumor.contact_mm2, tumor.parenchyma_5mm_ml, tumor.renal.total) == (None,) * 4
        assert any(flag.startswith("ragged: ") for flag in tumor.flags)


def test_nothing_is_nothing() -> None:
    reading = read_out(np.zeros((20, 30, 40), np.uint8), (2.0, 1.0, 1.0))
    assert reading.flags == ["empty: no kidney in the label map"]
    assert [kidney.present for kidney in reading.kidneys] == [False, False]
    assert reading.tumors == []


def test_hu_and_enhancement() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    hu = np.where(labels == 1, 180, np.where(labels == 2, 90, 50)).astype(np.int16)
    reading = read_out(labels, (2.0, 1.0, 1.0), hu)
    assert reading.tumors[0].hu is not None
    assert reading.tumors[0].hu.mean == 90
    assert reading.kidneys[1].enhancement_hu == 130
    assert read_out(labels, (2.0, 1.0, 1.0), np.where(labels > 0, 180, -900).astype(np.int16)).kidneys[1].enhancement_hu is None


@pytest.mark.parametrize(("mm", "points"), [(20, 1), (40, 1), (40.1, 2), (69.9, 2), (70.0, 3), (90, 3)])
def test_limits_of_size(mm: float, points: int) -> None:
    score = renal(Position(mm, 0.3, 5.0, 0.0, False, "anterior", False))
    assert score.R.points == points
    assert score.total == f"{points + 2 + 2 + 1}a"
    assert score.h.value is None
    assert score.h.rule


def test_padua_says_what_it_cannot_know() -> None:
    score = padua(Position(70.0, 0.6, 0.0, 0.7, True, "posterior", True))
    assert {name: part["points"] for name, part in asdict(score).items() if isinstance(part, dict)} == {
        "longitudinal": 2,
        "exophytic": 1,
        "rim": 2,
        "sinus": 2,
        "collecting_system": None,
        "size": 2,
    }
    assert (score.at_least, score.at_most, score.face) == (10, 11, "posterior")


ORDERS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.mark.parametrize("order", ORDERS[::9], ids=str)
def test_every_axis_order_gives_the_same_numbers(tmp_path: Path, order: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    labels = body(9.0, (30.0, -12.0, 14.0))
    stored = np.ascontiguousarray(labels.transpose(2, 1, 0))  # (L, P, S)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    image = nibabel.Nifti1Image(stored, affine)
    axes = np.column_stack([np.array(order[0], float), np.array(order[1], float)])
    nibabel.save(image.as_reoriented(axes), tmp_path / "case.nii.gz")
    volume = read_labels(tmp_path / "case.nii.gz", allowed=range(4))
    (tumor,) = read_out(volume.array, volume.spacing).tumors
    (expected,) = read_out(labels, (2.0, 1.0, 1.0)).tumors
    assert (tumor.side, tumor.face, tumor.renal.total) == (expected.side, expected.face, expected.renal.total)
    assert tumor.volume_ml == expected.volume_ml
    assert tumor.exophytic_share == pytest.approx(expected.exophytic_share, abs=1e-6)


def test_a_cohort_is_resumed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("case_00000", "case_00001"):
        (tree / name).mkdir(parents=True)
        image = nibabel.Nifti1Image(body(9.0, (30.0, -12.0, 14.0)).transpose(2, 1, 0), np.diag([-1.0, -1.0, 2.0, 1.0]))
        nibabel.save(image, tree / name / "segmentation.nii.gz")
    maps = find_maps(tree, None, None, label_name="segmentation.nii.gz")
    assert [job.name for job in maps] == ["case_00000", "case_00001"]
    assert finished(maps[0], tmp_path / "cases") is None
    found = [measure_map(job, tmp_path / "cases") for job in maps]
    assert finished(maps[0], tmp_path / "cases") == found[0]
    write_tables(found, {}, tmp_path)
    lines = (tmp_path / "measurements.csv").read_text().splitlines()
    assert lines[0].startswith("case,id,side,volume_ml,integrated_ml,axial_mm")
    assert [line.split(",")[:3] for line in lines[1:]] == [["case_00000", "left-1", "left"], ["case_00001", "left-1", "left"]]
    (tree / "case_00000" / "segmentation.nii.gz").touch()
    assert finished(maps[0], tmp_path / "cases") is None


def test_what_cannot_be_measured_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="no such file or folder"):
        find_maps(tmp_path / "none", None, None, label_name="segmentation.nii.gz")
    with pytest.raises(KitsError, match="no label map in it"):
        find_maps(tmp_path, None, None, label_name="segmentation.nii.gz")
    path = tmp_path / "slice.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 20, 1), np.uint8), np.eye(4)), path)
    with pytest.raises(KitsError, match="is one slice"):
        measure_map(LabelMap("slice", path), tmp_path / "cases")


def test_the_page_shows_where_each_number_was_taken() -> None:
    labels = body(10.0, (0.0, -24.0, 20.0))
    hu = np.where(labels > 0, 120, -50).astype(np.int16)
    reading = read_out(labels, (2.0, 1.0, 1.0), hu)
    page = sheet("<b>a</b>", reading, (2.0, 1.0, 1.0), hu)
    assert "<h1>&lt;b&gt;a&lt;/b&gt;</h1>" in page
    assert "<td>distance to the sinus</td>" in page
    assert "_mm<" not in page
    assert page.count("data:image/png;base64,") == 1
    assert f"{reading.tumors[0].axial_mm:.1f} mm" in page
    assert "a label map does not show the collecting system" in page
    assert "http" not in page.replace("http-equiv", "")
    (diameters,) = reading.shapes[1].diameters
    for ends, length in ((diameters.ends, diameters.axial), (diameters.short_ends, diameters.short)):
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(length)
    assert np.diff(diameters.ends, axis=0)[0] @ np.diff(diameters.short_ends, axis=0)[0] == pytest.approx(0, abs=1e-6)


def test_a_sinus_keeps_its_corners() -> None:
    labels = np.zeros((60, 40, 50), np.uint8)
    labels[5:55, 5:35, 5:45], labels[20:40, 12:28, 5:21] = 1, 0
    nowhere = np.zeros(labels.shape)
    sinus = find_sinus(Cubes(labels, nowhere, nowhere, [], 1.0, (0.0, 0.0, 0.0)), "left")
    assert sinus.mask[20:40, 12:28, 5:21].all()
    assert sinus.mask.sum() == 20 * 16 * 16
    assert sinus.polar_lines == (20, 39)
