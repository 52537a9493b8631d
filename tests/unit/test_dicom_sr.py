"""A structured report read back by another library holds the numbers of the read-out, on the segments that they were taken of."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

import kits
from kits.core.errors import KitsError
from kits.core.labels import CLASSES
from kits.io.series import find_series
from kits.prediction.dicom_seg import write_dicom_seg
from kits.readout.cohort import finished, measure_map
from kits.readout.maps import find_maps
from kits.volume import stored_order
from tests.conftest import kidney_pair
from tests.dicoms import multi_frame, write_series

highdicom = pytest.importorskip("highdicom")
pytestmark = pytest.mark.filterwarnings("ignore")  # both libraries warn of values that the archive has left empty

CODES = pydicom.sr.codedict.codes


def values_of(group: object) -> dict[str, tuple[float, str]]:
    """Value and unit by the meaning of their names."""
    return {one.name.meaning: (one.value, one.unit.value) for one in group.get_measurements()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("prone", [False, True])
def test_a_report_is_read_back(tmp_path: Path, prone: bool) -> None:
    hu, labels = kidney_pair(0)
    direction = [-1, 0, 0, 0, -1, 0] if prone else [1, 0, 0, 0, 1, 0]
    write_series(tmp_path / "ct", hu, ImageOrientationPatient=direction)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    write_dicom_seg(tmp_path / "labels.dcm", series.files, labels, CLASSES[:3])
    (job,) = find_maps(tmp_path / "labels.dcm", tmp_path / "ct", None, label_name="segmentation.nii.gz")
    found = measure_map(job, tmp_path / "cases", reports=tmp_path / "dicom")
    (tumor,) = found["tumors"]
    assert tumor["side"] == ("right" if prone else "left")

    report = highdicom.sr.srread(tmp_path / "dicom" / "labels" / "sr.dcm")
    segmentation = highdicom.seg.segread(tmp_path / "dicom" / "labels" / "seg.dcm")
    source = pydicom.dcmread(series.files[0])
    assert report.SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.PatientID, report.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 3
    by_name = {group.tracking_identifier: group for group in groups}
    group = by_name[f"tumor {tumor['id']}"]
    assert group.finding_type == CODES.SCT.Neoplasm
    assert group.finding_sites[0].laterality == (CODES.SCT.Right if prone else CODES.SCT.Left)
    assert values_of(group) == {
        "Volume": (pytest.approx(tumor["volume_ml"], abs=0.01), "mL"),
        "Long axis": (pytest.approx(tumor["axial_mm"], abs=0.01), "mm"),
        "Short axis": (pytest.approx(tumor["short_mm"], abs=0.01), "mm"),
    }
    for side, kidney in zip(("right", "left"), found["kidneys"], strict=True):
        values = values_of(by_name[f"{side} kidney without tumors"])
        assert values["Volume"] == (pytest.approx(kidney["parenchyma_ml"], abs=0.01), "mL")
        assert values["Length"] == (pytest.approx(kidney["length_mm"], abs=0.01), "mm")
    # The group's segment has the tumor's very voxels.
    (segment,) = (item for item in group.referenced_segment if item.name == CODES.DCM.ReferencedSegment)
    assert segment.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    number = segment.ReferencedSOPSequence[0].ReferencedSegmentNumber
    described = segmentation.get_segment_description(number)
    assert (described.tracking_uid, described.tracking_id) == (group.tracking_uid, group.tracking_identifier)
    uids = [str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in series.files]
    pixels = segmentation.get_pixels_by_source_instance(uids, [number], assert_missing_frames_are_empty=True)[..., 0]
    np.testing.assert_array_equal(pixels > 0, labels == 2)
    names = [item for item in group[0].ContentSequence if item.name == CODES.DCM.AlgorithmName]
    assert [item.TextValue for item in names] == ["kits, coarse to fine"]


def test_a_report_that_is_missing_is_made(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "ct", hu)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    write_dicom_seg(tmp_path / "labels.dcm", series.files, labels, CLASSES[:3])
    (job,) = find_maps(tmp_path / "labels.dcm", tmp_path / "ct", None, label_name="segmentation.nii.gz")
    measure_map(job, tmp_path / "cases")
    assert finished(job, tmp_path / "cases") is not None
    assert finished(job, tmp_path / "cases", reports=tmp_path / "dicom") is None
    measure_map(job, tmp_path / "cases", reports=tmp_path / "dicom")
    assert finished(job, tmp_path / "cases", reports=tmp_path / "dicom") is not None
    (tmp_path / "dicom" / "labels" / "sr.dcm").unlink()
    assert finished(job, tmp_path / "cases", reports=tmp_path / "dicom") is None


def test_a_multi_frame_ct_and_one_that_is_no_series(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    pydicom.dcmwrite(tmp_path / "ct.dcm", multi_frame(hu, [(-48.0, -48.0, 4.0 * k) for k in range(len(hu))]))
    volume = kits.read(tmp_path / "ct.dcm")
    kits.io.write_labels(tmp_path / "maps" / "ct.nii.gz", labels, volume.grid)
    kits.io.write_volume(tmp_path / "ct.nii.gz", volume.array, volume.grid)
    (job,) = find_maps(tmp_path / "maps", tmp_path / "ct.dcm", None, label_name="segmentation.nii.gz")
    measure_map(job, tmp_path / "cases", reports=tmp_path / "dicom")
    report = highdicom.sr.srread(tmp_path / "dicom" / "ct" / "sr.dcm")
    assert len(report.content.get_volumetric_roi_measurement_groups()) == 3
    (job,) = find_maps(tmp_path / "maps", tmp_path / "ct.nii.gz", None, label_name="segmentation.nii.gz")
    found = measure_map(job, tmp_path / "cases", reports=tmp_path / "other")
    assert "no DICOM series, so dicom_sr=true writes nothing of it" in found["flags"]
    assert not (tmp_path / "other").exists()


def test_a_series_without_what_a_report_repeats_is_one_line(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "ct", hu, FrameOfReferenceUID=None)
    (series,), _ = find_series(tmp_path / "ct", min_slices=4)
    volume = kits.read(tmp_path / "ct")
    assert stored_order(labels, volume.grid).shape == labels.shape
    kits.io.write_labels(tmp_path / "maps" / "ct.nii.gz", labels, volume.grid)
    (job,) = find_maps(tmp_path / "maps", series.folder, None, label_name="segmentation.nii.gz")
    with pytest.raises(KitsError, match=r"do not allow a DICOM report .*leave out dicom_sr"):
        measure_map(job, tmp_path / "cases", reports=tmp_path / "dicom")
    assert not (tmp_path / "dicom").exists()
