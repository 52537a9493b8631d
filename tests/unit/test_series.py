"""Trees of DICOM files: the CT series are found, the rest is named with its reason, and what is read is what was written."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from kits.core.errors import KitsError
from kits.io import read_series, read_volume
from kits.io.series import NOT_DICOM, find_series
from tests.conftest import SHARED, kidney_pair
from tests.dicoms import slice_of, write_series

HU = kidney_pair(0)[0]


def reasons(folder: Path) -> str:
    found, skipped = find_series(folder, min_slices=4)
    assert not found
    return "\n".join(map(str, skipped))


def test_a_series_comes_back_slice_by_slice_in_hu(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", HU)
    (series,), skipped = find_series(tmp_path, min_slices=4)
    assert not skipped
    volume = read_series(series.folder, series.files)
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.spacing == (4.0, 1.5, 1.5)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, HU)


def test_a_tree_of_an_export_is_sorted_out(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "ct", HU, series="arterial", number=3)
    write_series(tmp_path / "b", HU[:12], series="venous", number=4)
    write_series(tmp_path / "a" / "scout", HU[:1], series="topogram", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path / "mr", HU, series="t2", Modality="MR")
    write_series(tmp_path / "short", HU[:3], series="short")
    write_series(tmp_path / "shots", HU[:5], series="screens", ImagePositionPatient=None, ImageOrientationPatient=None)
    write_series(tmp_path / "plan", HU[:1], series="contours", Modality="RTSTRUCT", Rows=None, Columns=None, PixelData=None)
    write_series(tmp_path / "sizeless", HU[:5], series="sizeless", PixelSpacing=None)
    write_series(tmp_path / "flat", HU[:5], series="flat", PixelSpacing=[0, 0])
    write_series(tmp_path / "bent", HU[:5], series="bent", ImageOrientationPatient=[1, 0, 0, 0.3, 0.9, 0])
    color = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PixelData": np.zeros((64, 64, 6), np.uint8).tobytes()}
    write_series(tmp_path / "color", HU[:5], series="fused", **color)
    (tmp_path / "README").write_text("an export")
    (tmp_path / "a" / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI\xff\xff")
    found, skipped = find_series(tmp_path, min_slices=4)
    assert [(series.folder.name, len(series.files)) for series in found] == [("ct", 20), ("b", 12)]
    said = "\n".join(map(str, skipped))
    for words in (
        "scout: series 1 (topogram, 1 file(s)): a localizer",
        "mr: series 1 (t2, 20 file(s)): modality MR, not CT",
        "short: series 1 (short, 3 file(s)): only 3 slices",
        "shots: series 1 (screens, 5 file(s)): images without a position (secondary captures",
        "plan: series 1 (contours, 1 file(s)): no images (modality RTSTRUCT)",
        "color: series 1 (fused, 5 file(s)): in color (RGB)",
        "broken: damaged DICOM file",
        "sizeless: series 1 (sizeless, 5 file(s)): slices without a pixel spacing",
        "flat: series 1 (flat, 5 file(s)): slices without a pixel spacing",
        "bent: series 1 (bent, 5 file(s)): rows and columns not at right angles",
    ):
        assert words in said
    assert "README: no DICOM file" in said
    assert len(skipped) == 11


def test_a_scout_inside_a_series_is_left_out_and_two_planes_are_not_mixed(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", HU)
    scout = slice_of(
        HU[0], (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1]
    )
    pydicom.dcmwrite(tmp_path / "scan" / "scout.dcm", scout)
    (series,), skipped = find_series(tmp_path, min_slices=4)
    assert "scout.dcm: series 1 (axial, 21 file(s)): a localizer (scout), left out" in str(skipped[0])
    np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)
    write_series(tmp_path / "scan", HU[:8, :, :32].repeat(2, axis=1), positions=[(9.0, 0, k) for k in range(8)])
    (tmp_path / "scan" / "scout.dcm").unlink()
    for path in sorted((tmp_path / "scan").glob("*"))[:3]:
        changed = pydicom.dcmread(path)
        changed.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        changed.save_as(path)
    assert "mixed: images of" in reasons(tmp_path)


def test_a_slice_of_another_modality_is_told_and_inside_the_stack_refused(tmp_path: Path) -> None:
    last, inside = [write_series(tmp_path / name, HU) for name in ("last", "inside")]
    for path in (last / f"axial-{19 * 7 % 97:03d}.dcm", inside / f"axial-{7 * 7:03d}.dcm"):
        changed = pydicom.dcmread(path)
        changed.Modality = "PT"
        changed.save_as(path)
    (series,), (skipped,) = find_series(last, min_slices=4)
    assert skipped.why == "series 1 (axial, 20 file(s)): modality PT, not CT, left out"
    assert series.notes == read_volume(last).grid.notes == ("1 file(s) of it left out: modality PT, not CT",)
    np.testing.assert_array_equal(read_volume(last).array, HU[:-1])
    with pytest.raises(KitsError, match=r"slices are missing, .*; 1 file\(s\) of it left out: modality PT, not CT$"):
        read_volume(inside)


def test_two_series_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    write_series(tmp_path, HU, series="arterial", number=3)
    write_series(tmp_path, HU[:12], series="venous", number=4)
    found, _ = find_series(tmp_path, min_slices=4)
    assert [(series.number, len(series.files)) for series in found] == [("3", 20), ("4", 12)]
    with pytest.raises(KitsError, match=r"2 DICOM series, .*\(20 files, arterial\).*\(12 files, venous\)"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ([(0, 0, z) for z in (0, 4, 12, 16, 20)], "missing, doubled or uneven"),
        ([(0, 0, z) for z in (0, 4, 4, 8, 12)], "missing, doubled or uneven"),
        ([(0, 0, z) for z in (0, 4, 8, 12, 17.5)], "missing, doubled or uneven"),
        ([(0, 0.3 * z, z) for z in (0, 4, 8, 12, 16)], "gantry tilt"),
    ],
)
def test_slices_that_are_no_even_stack_are_refused(tmp_path: Path, places: list, reason: str) -> None:
    write_series(tmp_path, HU[:5], positions=places)
    with pytest.raises(KitsError, match=reason):
        read_volume(tmp_path)


def test_a_cut_slice_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, HU)
    path = sorted(tmp_path.iterdir())[3]
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(KitsError, match="incomplete, 5192 of 8192 bytes of pixels"):
        read_volume(tmp_path)


@pytest.mark.parametrize("changes", [{}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}], ids=["by ITK", "by us"])
def test_padding_above_all_tissue_is_air(tmp_path: Path, changes: dict[str, str]) -> None:
    """Of unsigned pixels a value far out stands for none: -2000 written as 63536, which would be 32767 HU."""
    pixels = (np.maximum(HU, -1024).astype(np.int32) + 1024).astype(np.uint16)
    pixels[:, :5] = 63536
    unsigned = {"PixelRepresentation": 0, "PixelPaddingValue": 63536}
    for path, plane in zip(sorted_series(tmp_path, **unsigned, **changes), pixels, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = plane.tobytes()
        dataset.save_as(path)
    expected = np.maximum(HU, -1024)
    expected[:, :5] = -1024
    np.testing.assert_array_equal(read_volume(tmp_path).array, expected)


def sorted_series(folder: Path, **changes: object) -> list[Path]:
    """Write a series; its files, feet first."""
    write_series(folder, HU, **changes)
    return sorted(folder.iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))


@pytest.mark.parametrize("kind", ["MIP", "CT_SOM5 MIP", "VRT", "MIN_IP"])
def test_a_projection_is_no_ct(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path, HU, ImageType=["DERIVED", "SECONDARY", kind])
    with pytest.raises(KitsError, match=rf"a projection or rendering \({kind.split()[-1]}\), not slices in HU"):
        read_volume(tmp_path)


def test_slices_of_several_frames_of_reference_are_noted(tmp_path: Path) -> None:
    for path in sorted_series(tmp_path)[:3]:
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(path)
    (found,), _ = find_series(tmp_path, min_slices=2)
    assert found.notes == ("its slices name 2 frames of reference: did the patient move, or are they of several scans?",)


@pytest.mark.parametrize(("apart", "told"), [(1, True), (len(HU) // 2, False)])
def test_two_acquisitions_that_lie_between_each_other_are_noted(tmp_path: Path, apart: int, told: bool) -> None:
    """Two time points half a step apart are one even stack; two that follow each other are one scan."""
    for place, path in enumerate(sorted_series(tmp_path)):
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionNumber = 1 + place // apart % 2
        dataset.save_as(path)
    (found,), _ = find_series(tmp_path, min_slices=2)
    assert [note.startswith("slices of 2 acquisitions lie between each other") for note in found.notes] == [True] * told


def test_a_slice_with_fewer_pixels_than_its_header_says_is_refused(tmp_path: Path) -> None:
    """Its file is whole, and ITK would fill the slice up with 0."""
    write_series(tmp_path, HU)
    path = sorted(tmp_path.iterdir())[3]
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[:-100]
    dataset.save_as(path)
    whole = 2 * HU[0].size
    with pytest.raises(KitsError, match=f"{path.name}: incomplete, {whole - 100} of {whole} bytes of pixels"):
        read_volume(tmp_path)


def test_nothing_is_decoded_that_no_ct_has_or_no_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "bomb", HU[:5], Rows=65000, Columns=65000)
    with pytest.raises(KitsError, match="bomb: its header promises 65000 x 65000 x 5 voxels, which no CT has"):
        read_volume(tmp_path / "bomb")
    write_series(tmp_path / "scan", HU)
    monkeypatch.setattr("kits.io.limits.free_bytes", lambda: 1000)
    with pytest.raises(KitsError, match=r"scan: needs 0\.0 GB of memory for its voxels"):
        read_volume(tmp_path / "scan")


def test_a_series_without_its_last_file_is_no_shorter_series(tmp_path: Path) -> None:
    write_series(tmp_path, HU)
    last = max(tmp_path.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:300])
    with pytest.raises(KitsError, match=rf"{last.name}: damaged DICOM file .*; export it again; or take it out"):
        read_volume(tmp_path)
    (series,), skipped = find_series(tmp_path, min_slices=4)
    assert series.notes == ("1 file(s) beside its own cannot be read and are left out: are slices of it missing?",)
    assert [item.path for item in skipped] == [last]
    last.unlink()
    assert read_volume(tmp_path).array.shape == (19, 64, 64)


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
def test_a_real_series_is_found_in_its_tree() -> None:
    found, skipped = find_series(SHARED / "ct", min_slices=4)
    assert [(series.folder.name, len(series.files)) for series in found] == [("crlm_1006_dicom", 51)]
    assert {item.why for item in skipped} == {NOT_DICOM}
