"""NIfTI voxels read by ourselves are ITK's to the bit, whatever the type, scaling and byte order; nothing damaged passes."""

from __future__ import annotations

import gzip
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from omegaconf import OmegaConf

from kits.bench import data_parts
from kits.core.errors import KitsError
from kits.io import check_file, nifti, read_geometry, read_labels, read_volume
from kits.volume import from_image, grid_of

SHAPE = (5, 6, 7)  # as nibabel counts: the first axis is the fastest in the file
KITS_AFFINE = np.array([[0, 0, -0.8, 30.0], [0, -0.7, 0, 40.0], [-3.0, 0, 0, 50.0], [0, 0, 0, 1]])
INTEGERS = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"]


def content(
    stored: np.ndarray, *, order: str = "<", slope: float = 1, inter: float = 0, gap: int = 4, dims: list[int] | None = None
) -> bytes:
    """A NIfTI-1 file: header, `gap` bytes, and the array (any type) in the order that it is indexed in, first axis fastest."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_shape(dims or stored.shape)
    header.set_data_dtype(stored.dtype)
    header.set_qform(KITS_AFFINE, 1)
    header.set_sform(KITS_AFFINE, 1)
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = slope, inter, 348 + gap, b"n+1"
    return header.binaryblock + bytes(gap) + stored.astype(stored.dtype.newbyteorder(order)).tobytes(order="F")


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def numbers(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Over the whole range of the type, its ends among them; fractions, halves and huge ones for floats."""
    rng = np.random.default_rng(0)
    if dtype in INTEGERS:
        ends = np.iinfo(dtype)
        values = rng.integers(ends.min, ends.max, shape, dtype=dtype, endpoint=True)
        values.flat[:2] = ends.min, ends.max
        return values
    values = rng.normal(0, 1000, shape).astype(dtype)
    values.flat[:7] = 0.5, -0.5, 1.5, -1.5, 2.5, 1e30, -1e30
    return values


def refusal(path: Path) -> str:
    with pytest.raises(KitsError) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def whole_hu(image: sitk.Image) -> np.ndarray:
    """ITK's own rounding, and clipping."""
    values = sitk.GetArrayFromImage(image)
    if values.dtype.kind == "f":
        rounded = sitk.GetArrayFromImage(sitk.Round(image))
        return np.clip(np.where(abs(values) < 1e6, rounded, values), -32768, 32767).astype(np.int16)  # its rounding overflows
    return np.array([min(max(int(value), -32768), 32767) for value in values.ravel()], np.int16).reshape(values.shape)


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_values_are_itks_to_the_bit(tmp_path: Path, dtype: str, order: str, name: str) -> None:
    scalings = [(0, 0), (1, 0), (1, -1024), (2, 0), (0.1, -3.7), (-1, 5), (np.nan, 0), (np.inf, np.nan)]
    for slope, inter in scalings:
        path = save(tmp_path / name, content(numbers(dtype), order=order, slope=slope, inter=inter))
        image = sitk.ReadImage(path)
        expected = sitk.GetArrayFromImage(image)
        stored = nifti.find_voxels(path, nifti.read_header(path))
        assert stored is not None
        found = stored.read(expected.shape, expected.dtype, lambda values: values)
        np.testing.assert_array_equal(found, expected, err_msg=f"slope {slope}, inter {inter}", strict=True)
        volume = read_volume(path)
        assert volume.grid == grid_of(image)
        np.testing.assert_array_equal(volume.array.transpose(2, 1, 0)[:, :, ::-1], whole_hu(image), strict=True)


def test_chunks_do_not_show(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).normal(0, 1000, (70, 81, 90)).astype(np.float32)  # 2 MB
    path = save(tmp_path / "scan.nii.gz", content(stored, order=">"))
    np.testing.assert_array_equal(read_volume(path).array, np.floor(stored.astype(np.float64) + 0.5)[::-1])
    labels = (stored > 1000).astype(np.uint16) + (stored > 2000)
    path = save(tmp_path / "labels.nii.gz", content(labels))
    np.testing.assert_array_equal(read_labels(path, allowed=(0, 1, 2)).array, labels[::-1])


@pytest.mark.parametrize("gap", [4, 36, 4000])
def test_voxels_begin_where_the_header_says(tmp_path: Path, gap: int) -> None:
    stored = numbers("i2")
    path = save(tmp_path / "scan.nii.gz", content(stored, gap=gap))
    np.testing.assert_array_equal(read_volume(path).array, stored[::-1])


@pytest.mark.parametrize("extra", [[1], [1, 1]])
def test_one_time_point_is_a_volume(tmp_path: Path, extra: list[int]) -> None:
    stored = numbers("i2")
    path = save(tmp_path / "scan.nii.gz", content(stored, dims=[*SHAPE, *extra]))
    np.testing.assert_array_equal(read_volume(path).array, stored[::-1])
    assert read_volume(path).grid == grid_of(sitk.ReadImage(path)) == read_geometry(path)


@pytest.mark.parametrize("dtype", [nib.nifti1.data_type_codes.dtype["RGB"], np.dtype("c8")])
def test_colors_and_complex_numbers_are_refused(tmp_path: Path, dtype: np.dtype) -> None:
    assert "one value per voxel" in refusal(save(tmp_path / "scan.nii.gz", content(np.zeros(SHAPE, dtype))))


def test_a_pair_of_header_and_voxels_is_read_by_itk(tmp_path: Path) -> None:
    stored = numbers("i2")
    nib.save(nib.Nifti1Pair(stored, KITS_AFFINE), tmp_path / "scan.img")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.hdr").array, stored[::-1])


def test_the_array_is_a_view_of_the_one_buffer(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(-1000, 1000, (100, 110, 120)).astype(np.int16)
    read_volume(save(tmp_path / "small.nii.gz", content(stored[:5])))  # imports and pools are paid for
    for dtype in (np.int16, np.float32):
        path = save(tmp_path / f"{np.dtype(dtype).name}.nii.gz", content(stored.astype(dtype)))
        tracemalloc.start()
        array = read_volume(path).array
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        buffer = array
        while isinstance(buffer.base, np.ndarray):
            buffer = buffer.base
        assert np.shares_memory(array, buffer)
        assert buffer.flags.c_contiguous
        assert (buffer.dtype, buffer.size, array.strides) == (np.int16, array.size, (-2, 200, 22000))
        assert not array.flags.writeable
        assert peak < array.nbytes + 3e6, "a second copy, or all of the file's floats"


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for name in ("scan.nii", "scan.nii.gz"):
        whole = save(tmp_path / name, content(numbers("i2"))).read_bytes()
        for end in {0, 1, 5, 100, 347, 348, 352, len(whole) // 2, *range(len(whole) - 12, len(whole))}:
            (tmp_path / name).write_bytes(whole[:end])
            assert any(word in refusal(tmp_path / name) for word in ("incomplete", "not an image"))


def test_any_damaged_byte_of_a_compressed_file_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "scan.nii.gz", content(numbers("i2"))).read_bytes()
    for place in [*range(500, len(whole), 7), *range(len(whole) - 8, len(whole))]:  # behind the header; checksum and length
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        (tmp_path / "scan.nii.gz").write_bytes(damaged)
        assert "damaged" in refusal(tmp_path / "scan.nii.gz")


def test_what_follows_the_stream_is_damage_unless_it_is_another_stream(tmp_path: Path) -> None:
    data = content(numbers("i2"))
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(data) + b"something else follows")
    assert "(something follows the compressed data)" in refusal(path)
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))  # as parallel compressors write it
    np.testing.assert_array_equal(read_volume(path).array, numbers("i2")[::-1])


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_header_that_promises_terabytes_asks_for_no_memory(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, content(numbers("i2"), dims=[32000, 32000, 32000]))
    assert "promises 32000 x 32000 x 32000 voxels, which no CT has" in refusal(path)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_header_of_noise_never_crashes(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(150):
        data = bytearray(content(numbers("i2")))
        for place in rng.integers(0, 348, 3):
            data[place] = rng.integers(256)
        with suppress(KitsError):
            read_volume(save(tmp_path / name, bytes(data)))
            read += 1
    assert 0 < read < 150


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_nifti_2_is_named(tmp_path: Path, name: str, endianness: str) -> None:
    nib.save(nib.Nifti2Image(numbers("i2"), KITS_AFFINE, nib.Nifti2Header(endianness=endianness)), tmp_path / name)
    assert "NIfTI-2" in refusal(tmp_path / name)


def test_the_voxels_of_a_pair_point_to_their_header(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(numbers("i2"), KITS_AFFINE), tmp_path / "scan.img")
    assert "has the voxels alone, its header is scan.hdr; give that one" in refusal(tmp_path / "scan.img")
    assert read_volume(tmp_path / "scan.hdr").array.shape


def test_unknown_labels_are_named_together_wherever_they_are(tmp_path: Path) -> None:
    labels = np.zeros((80, 80, 80), np.uint16)
    labels[0, 0, 0], labels[1, 1, 79], labels[5, 5, 40] = 4, 300, 2
    path = save(tmp_path / "labels.nii.gz", content(labels))
    with pytest.raises(KitsError, match=r"label values 2, 4, 300 are not among 0 background, 1 kidney, 3 cyst"):
        read_labels(path, allowed=(0, 1, 3))
    labels[labels > 0] = 3
    found = read_labels(save(path, content(labels)), allowed=(0, 1, 3)).array
    np.testing.assert_array_equal(found, labels[::-1])


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
def test_other_formats_come_through_itk(tmp_path: Path, dtype: str) -> None:
    image = sitk.GetImageFromArray(numbers(dtype))
    sitk.WriteImage(image, tmp_path / "scan.mha")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.mha").array, whole_hu(image), strict=True)
    labels = np.arange(210).reshape(SHAPE).astype(dtype) % 3
    sitk.WriteImage(sitk.GetImageFromArray(labels), tmp_path / "labels.nrrd")
    found = read_labels(tmp_path / "labels.nrrd", allowed=(0, 1, 2)).array
    np.testing.assert_array_equal(found, labels.astype(np.uint8), strict=True)


def test_the_bench_measures_every_reading_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = OmegaConf.load(Path(__file__).parents[2] / "conf" / "bench_data.yaml").bars
    small = {name: replace(grid, size=tuple(n // 8 for n in grid.size)) for name, grid in data_parts.SCANS.items()}
    monkeypatch.setattr(data_parts, "SCANS", small)
    ratios = data_parts.measure_reading({"scratch": str(tmp_path)})
    assert set(ratios) == {name for name in bars if name.startswith("read_")}
    assert all(ratio > 0 for ratio in ratios.values())
    assert not list(tmp_path.iterdir())
    hu = data_parts.draw_scan((8, 256, 256))
    assert 1.7 < hu.nbytes / len(gzip.compress(hu.tobytes())) < 2.5  # as CT compresses


@pytest.mark.slow
def test_real_files_are_itks_to_the_bit(shared_data: Path) -> None:
    paths = sorted([*shared_data.glob("kits19/*/segmentation.nii.gz"), *shared_data.glob("ct/*.nii.gz")])
    assert len(paths) >= 44
    for path in paths:
        image = sitk.ReadImage(path)
        expected = from_image(image)  # compared with ITK's own orientation in test_volume.py
        volume = read_labels(path, allowed=(0, 1, 2)) if path.name.startswith("seg") else read_volume(path)
        assert volume.grid == expected.grid == read_geometry(path)
        assert expected.array.dtype.kind in "iu"
        assert np.array_equal(volume.array, expected.array), path


def test_a_real_dicom_series_is_itks_to_the_bit(shared_data: Path) -> None:
    folder = shared_data / "ct" / "crlm_1006_dicom"
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(read_volume(folder).array, sitk.GetArrayFromImage(image))
    assert read_volume(folder).grid == grid_of(image)


def test_voxels_that_no_two_programs_read_alike_are_refused(tmp_path: Path) -> None:
    stored = numbers("i2")
    for gap in (-348, 0, 3):
        whole = content(stored, gap=max(gap, 0))
        shifted = whole[:108] + np.float32(348 + gap).tobytes() + whole[112:]
        said = refusal(save(tmp_path / "shifted.nii", shifted))
        assert f"voxels begin at byte {348 + gap:g} (vox_offset), and not behind its 352 bytes" in said
    for slope in (0, np.nan, 1e-30):
        path = save(tmp_path / "odd.nii", content(stored, slope=slope, inter=-1024))
        ours, theirs = sitk.GetArrayFromImage(sitk.ReadImage(path)), nib.load(path).get_fdata()
        assert ours.min() != theirs.min(), "ITK adds the intercept alone, nibabel neither of two or both"
        assert f"scl_slope {slope:g} and scl_inter -1024, which programs read differently" in refusal(path)
    no_offset = save(tmp_path / "odd.nii", content(stored, slope=1, inter=np.nan))
    assert "scl_slope 1 and scl_inter nan, which programs read differently" in refusal(no_offset)
    assert read_volume(save(tmp_path / "odd.nii", content(stored, slope=np.nan, inter=np.nan))).array.max() == stored.max()


@pytest.mark.parametrize("name", ["long.nii", "long.nii.gz"])
def test_more_voxels_than_the_header_says_are_refused(tmp_path: Path, name: str) -> None:
    whole = content(numbers("i2"))
    assert read_volume(save(tmp_path / f"padded_{name}", whole + bytes(4096))).array.shape == SHAPE
    assert "holds more voxels than its header says" in refusal(save(tmp_path / name, whole + bytes(4097)))
    with pytest.raises(KitsError, match="more voxels"):
        check_file(tmp_path / name)


def test_what_a_name_hides_is_read_or_said(tmp_path: Path) -> None:
    whole = content(numbers("i2"))
    plain = read_volume(save(tmp_path / "plain.nii.gz", whole))
    packed = (tmp_path / "plain.nii.gz").read_bytes()
    for name in ("a.nii.GZ", "b.Nii.gz", "c.NII.GZ"):
        (tmp_path / name).write_bytes(packed)
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, plain.array)
    (tmp_path / "d.Nii").write_bytes(whole)
    np.testing.assert_array_equal(read_volume(tmp_path / "d.Nii").array, plain.array)
    assert "is packed twice, gzip in gzip; unpack it once" in refusal(save(tmp_path / "twice.nii.gz", packed))
    page = b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>"
    (tmp_path / "page.nii.gz").write_bytes(page)
    for path in (tmp_path / "page.nii.gz", save(tmp_path / "packed.nii.gz", page)):
        assert "is a web page and no image" in refusal(path)


@pytest.mark.parametrize(("unit", "wrong"), [("meter", 1000), ("micron", 0.001)])
def test_a_unit_of_length_that_the_numbers_contradict_is_refused(tmp_path: Path, unit: str, wrong: float) -> None:
    def file(affine: np.ndarray) -> Path:
        image = nib.Nifti1Image(numbers("i2"), affine)
        image.set_sform(affine, 1)
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / "scan.nii")
        return tmp_path / "scan.nii"

    true = np.diag([1 / wrong, 1 / wrong, 1 / wrong, 1]) @ KITS_AFFINE
    np.testing.assert_allclose(read_volume(file(true)).spacing, (3.0, 0.7, 0.8), rtol=1e-5)
    with pytest.raises(KitsError, match="which no CT has; mend it, or its unit of length"):
        read_volume(file(KITS_AFFINE))
