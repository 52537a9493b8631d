"""A DICOM segmentation read back by another library is the label map, voxel by voxel, on the slices that it names."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from kits.errors import KitsError
from kits.io import read_series
from kits.io.series import find_series
from kits.labels import CLASSES
from kits.prediction.dicom_seg import write_dicom_seg
from kits.volume import stored_order
from tests.conftest import SHARED, kidney_pair
from tests.dicoms import write_series

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


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
def test_a_real_series_carries_its_segmentation(tmp_path: Path) -> None:
    (series,), _ = find_series(SHARED / "ct" / "crlm_1006_dicom", min_slices=4)
    volume = read_series(series.folder, series.files)
    labels = (volume.array > 300).astype(np.uint8) + (volume.array > 600)
    stored = stored_order(labels, volume.grid)
    write_dicom_seg(tmp_path / "seg.dcm", series.files, stored, CLASSES[:3])
    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series.files), stored)
