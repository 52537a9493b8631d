"""A DICOM segmentation read back by another library is the label map, voxel by voxel, on the slices that it names."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from kits.core.errors import KitsError
from kits.core.labels import CLASSES
from kits.io import read_series
from kits.io.series import find_series
from kits.prediction.dicom_seg import write_dicom_seg
from kits.volume import stored_order
from tests.conftest import SHARED, kidney_pair
from tests.dicoms import multi_frame, write_series

highdicom = pytest.importorskip("highdicom")
pytestmark = pytest.mark.filterwarnings("ignore")  # both libraries warn of values that the archive has left empty


def read_back(path: Path, files: tuple[Path, ...]) -> np.ndarray:
    """Labels (slice, row, column) in the order of these files."""
    uids = [str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in files]
    segmentation = highdicom.seg.segread(path)
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    return segmentation.get_pixels_by_source_instance(uids, **options)


@pytest.mark.parametrize(
    "direction",
    [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [0, 1, 0, 0, 0, -1], [0.98, 0.199, 0, -0.199, 0.98, 0]],
    ids=["axial", "prone", "sagittal", "oblique"],
)
def test_a_label_map_comes_back_voxel_by_voxel(tmp_path: Path, direction: list[float]) -> None:
    hu, labels = kidney_pair(0)
    labels[:3, :5, :5] = 3
    normal = np.cross(direction[:3], direction[3:])
    places = [list(4.0 * k * normal) for k in range(len(hu))]
    write_series(tmp_path / "ct", hu, positions=places, ImageOrientationPatient=direction)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    volume = read_series(series.folder, series.files)
    np.testing.assert_array_equal(stored_order(volume.array, volume.grid), hu)
    write_dicom_seg(tmp_path / "seg.dcm", series.files, labels, CLASSES)
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series.files), labels)
    header = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [segment.SegmentLabel for segment in header.SegmentSequence] == ["kidney", "tumor", "cyst"]
    assert header.StudyInstanceUID == pydicom.dcmread(series.files[0]).StudyInstanceUID


def test_an_empty_label_map_is_an_empty_object(tmp_path: Path) -> None:
    hu = kidney_pair(0)[0]
    write_series(tmp_path / "ct", hu)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    write_dicom_seg(tmp_path / "seg.dcm", series.files, np.zeros(hu.shape, np.uint8), CLASSES[:3])
    assert not read_back(tmp_path / "seg.dcm", series.files).any()


def test_a_series_without_what_the_object_repeats_is_one_line(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "ct", hu, FrameOfReferenceUID=None)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    with pytest.raises(KitsError, match=r"no Frame Of Reference.*leave out dicom_seg"):
        write_dicom_seg(tmp_path / "seg.dcm", series.files, labels, CLASSES[:3])
    assert not (tmp_path / "seg.dcm").exists()


def test_a_series_of_two_studies_is_one_line(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "ct", hu)
    path = min((tmp_path / "ct").iterdir())
    other = pydicom.dcmread(path)
    other.StudyInstanceUID = pydicom.uid.generate_uid()
    other.save_as(path)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    assert len(series.files) == len(hu), "one study or two, it is one stack"
    with pytest.raises(KitsError, match=r"ct: its headers do not allow a DICOM segmentation .*; leave out dicom_seg"):
        write_dicom_seg(tmp_path / "seg.dcm", series.files, labels, CLASSES[:3])


@pytest.mark.parametrize("order", [range(20), range(19, -1, -1)], ids=["up", "down"])
def test_a_multi_frame_series_carries_its_segmentation_frame_by_frame(tmp_path: Path, order: range) -> None:
    hu, labels = kidney_pair(0)
    places = [(-48.0, -48.0, 4.0 * k) for k in order]
    pydicom.dcmwrite(tmp_path / "ct.dcm", multi_frame(hu[list(order)], places))
    (series,), _ = find_series(tmp_path, min_slices=4)
    write_dicom_seg(tmp_path / "seg.dcm", series.files, labels, CLASSES[:3])
    segmentation = highdicom.seg.segread(tmp_path / "seg.dcm")
    source = str(pydicom.dcmread(tmp_path / "ct.dcm").SOPInstanceUID)
    numbers = list(range(1, 21))
    by_frame = segmentation.get_pixels_by_source_frame(
        source, numbers, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(by_frame, labels[list(order)])


def test_what_may_be_empty_may_be_missing_and_any_alphabet_comes_back(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    empty = dict.fromkeys(
        ("PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "Modality")
    )
    write_series(tmp_path / "gone", hu, PatientName=None, ReferringPhysicianName=None, **empty)
    write_series(tmp_path / "odd", hu, PatientSex="unknown", StudyDate="in May", PatientBirthDate="19XX0101")
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    write_series(tmp_path / "kanji", hu, SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name)
    write_series(tmp_path / "latin", hu, SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    write_series(tmp_path / "unknown", hu, SpecificCharacterSet="ISO_IR 999")
    for folder, expected in (("gone", ""), ("odd", "Nobody"), ("kanji", name), ("latin", "Müller"), ("unknown", "Nobody")):
        (series,), _ = find_series(tmp_path / folder, min_slices=4)
        write_dicom_seg(tmp_path / "seg.dcm", series.files, labels, CLASSES[:3])
        np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series.files), labels)
        assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName or "") == expected


def test_directions_that_differ_in_the_seventh_digit_are_one_for_the_object(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "ct", hu)
    for k, path in enumerate(sorted((tmp_path / "ct").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.ImageOrientationPatient = [1, k % 2 * 1e-7, 0, k % 2 * -1e-7, 1, 0]
        dataset.PixelSpacing = [1.5 + k % 2 * 1e-7] * 2
        dataset.save_as(path)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    write_dicom_seg(tmp_path / "seg.dcm", series.files, labels, CLASSES[:3])
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series.files), labels)


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
def test_a_real_series_carries_its_segmentation(tmp_path: Path) -> None:
    (series,), _ = find_series(SHARED / "ct" / "crlm_1006_dicom", min_slices=4)
    volume = read_series(series.folder, series.files)
    labels = (volume.array > 300).astype(np.uint8) + (volume.array > 600)
    stored = stored_order(labels, volume.grid)
    write_dicom_seg(tmp_path / "seg.dcm", series.files, stored, CLASSES[:3])
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series.files), stored)
