"""Reading what is sound, refusing what is not in one line, and writing all or nothing."""

from __future__ import annotations

import gzip
import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from kits.core.errors import KitsError
from kits.io import read_geometry, read_labels, read_volume, write_labels, write_text, write_volume
from kits.volume import Grid, grid_of
from tests.conftest import SHARED

KITS_AFFINE = np.array([[0, 0, -0.8, 30.0], [0, -0.7, 0, 40.0], [-3.0, 0, 0, 50.0], [0, 0, 0, 1]])


def save(path: Path, array: np.ndarray, affine: np.ndarray = KITS_AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def numbers(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(dtype)


def refusal(path: Path) -> str:
    with pytest.raises(KitsError) as caught:
        read_volume(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def write_series(folder: Path, positions: list[tuple[float, float, float]], uid: str = "1.2.3") -> Path:
    folder.mkdir(exist_ok=True)
    for number, position in enumerate(positions):
        image = sitk.GetImageFromArray(np.full((1, 5, 4), 10 * number - 1000, np.int16))
        image.SetSpacing((0.5, 0.7, 1.0))
        tags = {
            "0008|0060": "CT",
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0020|0013": str(number + 1),
            "0008|103e": f"series {uid}",
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{uid}-{number}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, "")  # ITK's writer of DICOM leaves the process in the C locale
    return folder


def test_a_kits19_file_comes_in_as_slices(tmp_path: Path) -> None:
    stored = numbers()
    volume = read_volume(save(tmp_path / "imaging.nii.gz", stored))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, stored[::-1])  # axis codes I, P, L: only the slices run the wrong way
    np.testing.assert_allclose(volume.spacing, (3.0, 0.7, 0.8), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_every_pixel_type_becomes_int16(tmp_path: Path, dtype: type) -> None:
    stored = np.abs(numbers()).astype(np.uint8).astype(dtype)
    volume = read_volume(save(tmp_path / "scan.nii", stored))
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, stored[::-1])


def test_fractions_are_rounded_and_extremes_clipped(tmp_path: Path) -> None:
    stored = numbers(np.float32)
    stored.flat[:5] = (-99.6, 99.6, 1e6, -1e6, -3024)
    volume = read_volume(save(tmp_path / "scan.nii", stored, np.diag((-1.0, -1.0, 1.0, 1.0))))
    assert [volume.array[k, 0, 0] for k in range(5)] == [-100, 100, 32767, -32768, -3024]


def test_stored_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.abs(numbers()), KITS_AFFINE)
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "scan.nii.gz")
    expected = np.asarray(nib.load(tmp_path / "scan.nii.gz").dataobj)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii.gz").array, expected[::-1])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.nii.gz")


def test_something_else_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_text("hello")
    assert "not an image" in refusal(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, numbers())
    path.write_bytes(path.read_bytes()[:-100])
    assert "incomplete" in refusal(path)


def test_a_truncated_volume_in_a_whole_gzip_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", numbers())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))
    assert "incomplete" in refusal(path)


def test_a_damaged_byte_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", numbers())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 8, 2)])
def test_only_3d_is_accepted(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert f"is {len(shape)}D" in refusal(save(tmp_path / "scan.nii", np.zeros(shape, np.int16)))


def test_sheared_axes_are_refused_with_a_remedy(tmp_path: Path) -> None:
    sheared = KITS_AFFINE.copy()
    sheared[0, 1] = 0.5
    image = nib.Nifti1Image(numbers(), sheared)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "scan.nii")
    assert "resample" in refusal(tmp_path / "scan.nii")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_without_a_value_are_refused(tmp_path: Path, value: float) -> None:
    stored = numbers(np.float32)
    stored[1, 2, 3] = value
    for name in ("scan.nii", "scan.nii.gz"):  # ITK itself turns these into 0 HU, which is water
        assert "NaN" in refusal(save(tmp_path / name, stored))
    sitk.WriteImage(sitk.GetImageFromArray(stored), tmp_path / "scan.mha")
    assert "NaN" in refusal(tmp_path / "scan.mha")
    big_endian = nib.Nifti1Image(stored, KITS_AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(big_endian, tmp_path / "big.nii.gz")
    assert "NaN" in refusal(tmp_path / "big.nii.gz")


def test_a_dicom_series_is_stacked_by_position(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [(1.0, 2.0, 30.0 - 2.5 * k) for k in range(4)])  # stored from the top down
    volume = read_volume(folder)
    assert volume.spacing == (2.5, 0.7, 0.5)
    np.testing.assert_array_equal(volume.array[:, 0, 0], [-970, -980, -990, -1000])
    assert volume.grid.origin == (1.0, 2.0, 22.5)


def test_two_dicom_series_in_a_folder_are_named(tmp_path: Path) -> None:
    for uid in ("1.2.3", "1.2.4"):
        write_series(tmp_path / "series", [(0.0, 0.0, 2.0 * k) for k in range(3)], uid)
    text = refusal(tmp_path / "series")
    assert "1.2.3 (3 files, series 1.2.3)" in text
    assert "1.2.4" in text


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    assert "no DICOM series" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ([(0, 0, z) for z in (0, 2, 6, 8)], "missing"),
        ([(0, 0, z) for z in (0, 2, 2, 4)], "doubled"),
        ([(0, 0.4 * z, z) for z in (0, 2, 4, 6)], "gantry tilt"),
    ],
)
def test_uneven_dicom_slices_are_refused(tmp_path: Path, positions: list, reason: str) -> None:
    assert reason in refusal(write_series(tmp_path / "series", positions))


def test_a_single_dicom_slice_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series", [(0, 0, 0)])
    with pytest.raises(KitsError, match="one slice"):
        read_volume(folder)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_labels_are_uint8_whatever_is_stored(tmp_path: Path, dtype: type) -> None:
    stored = np.random.default_rng(0).integers(0, 3, (6, 7, 8)).astype(dtype)
    labels = read_labels(save(tmp_path / "segmentation.nii.gz", stored), allowed=(0, 1, 2))
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, stored[::-1])


def test_labels_that_were_rounded_when_they_were_stored_are_whole(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 3, (6, 7, 8)) * 1.00000005
    assert not np.array_equal(stored, np.rint(stored))
    exact = read_labels(save(tmp_path / "exact.nii.gz", np.rint(stored)), allowed=(0, 1, 2)).array
    np.testing.assert_array_equal(read_labels(save(tmp_path / "x.nii.gz", stored), allowed=(0, 1, 2)).array, exact)


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.uint8, 3), (np.uint16, 258), (np.int16, -1), (np.float32, 0.5), (np.float64, 2.0002)]
)
def test_other_label_values_are_refused(tmp_path: Path, dtype: type, value: float) -> None:
    stored = np.zeros((6, 7, 8), dtype)
    stored[3, 3, 3] = value
    with pytest.raises(KitsError, match=f"label values {value} are not among"):
        read_labels(save(tmp_path / "segmentation.nii.gz", stored), allowed=(0, 1, 2))


def test_a_scan_in_the_place_of_a_label_map_is_told(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match=r"-1024, .* this looks like HU of a scan; give a label map"):
        read_labels(save(tmp_path / "imaging.nii.gz", np.array([[[-1024, 0], [40, -3]]], np.int16)), allowed=(0, 1, 2))


def test_labels_go_back_into_their_files_grid(tmp_path: Path) -> None:
    angle = np.radians(10)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = affine @ KITS_AFFINE
    source = save(tmp_path / "imaging.nii.gz", numbers(), affine)
    volume = read_volume(source)
    labels = (volume.array > 0).astype(np.uint8)
    write_labels(tmp_path / "out" / "case.nii.gz", labels, volume.grid)
    assert volume.grid == grid_of(sitk.ReadImage(source))
    back = read_geometry(tmp_path / "out" / "case.nii.gz")
    assert (back.size, back.spacing, back.origin) == (volume.grid.size, volume.grid.spacing, volume.grid.origin)
    np.testing.assert_allclose(back.direction, volume.grid.direction, atol=1e-7)  # NIfTI stores a float32 quaternion
    written = nib.load(tmp_path / "out" / "case.nii.gz")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), numbers() > 0)
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    path = tmp_path / "case.nii.gz"
    write_labels(path, np.ones((2, 3, 4), np.uint8), grid)
    before = path.read_bytes()

    def half_written(image: sitk.Image, name: Path, **_: object) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(sitk, "WriteImage", half_written)
    with pytest.raises(KitsError, match="disk full"):
        write_labels(path, np.zeros((2, 3, 4), np.uint8), grid)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["case.nii.gz"]


def test_labels_that_do_not_fit_a_byte_are_refused(tmp_path: Path) -> None:
    grid = Grid((4, 3, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="0 to 255"):
        write_labels(tmp_path / "case.nii.gz", np.full((2, 3, 4), 300), grid)
    with pytest.raises(KitsError, match=r"\.nii\.gz"):
        write_volume(tmp_path / "case.nii", np.zeros((2, 3, 4), np.int16), grid)


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
@pytest.mark.parametrize("name", ["crlm_1006_dicom", "crlm_1004.nii.gz", "totalsegmentator_example.nii.gz"])
def test_real_scans_come_back_in_their_own_grid(tmp_path: Path, name: str) -> None:
    volume = read_volume(SHARED / "ct" / name)
    assert volume.array.shape[0] < volume.array.shape[2]
    bone = (volume.array > 300).astype(np.uint8)
    write_labels(tmp_path / "back.nii.gz", bone, volume.grid)
    again = read_labels(tmp_path / "back.nii.gz", allowed=(0, 1))
    np.testing.assert_array_equal(again.array, bone)
    np.testing.assert_allclose(again.grid.origin, volume.grid.origin, atol=1e-4)
    assert again.grid.size == volume.grid.size
    if name.endswith(".gz"):
        assert again.grid == volume.grid
        theirs, ours = nib.load(SHARED / "ct" / name), nib.load(tmp_path / "back.nii.gz")
        np.testing.assert_array_equal(theirs.affine, ours.affine)


def test_a_text_is_written_whole_and_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "summary.json", "{}")
    assert [(entry.name, entry.read_text(encoding="utf-8")) for entry in (tmp_path / "deep").iterdir()] == [
        ("summary.json", "{}")
    ]
    with pytest.raises(KitsError, match="cannot be written"):
        write_text(tmp_path / "deep" / "summary.json" / "below", "{}")
