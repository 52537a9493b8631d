"""CT with DICOM segmentations or structure sets becomes a KiTS tree with the labels that they describe."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from kits.config.composing import checked
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.core.labels import CLASSES
from kits.io import read_labels, read_volume
from kits.io.series import find_series
from kits.prediction.dicom_labels import STRUCTURE_SET, class_of
from kits.prediction.dicom_seg import write_dicom_seg
from kits.prediction.dicom_tree import convert_dicom
from tests.conftest import kidney_pair
from tests.dicoms import slice_of, write_series

SHAPE, SPACING, ORIGIN = (20, 64, 64), (4.0, 1.5, 1.5), (0.0, -48.0, -48.0)  # (z, y, x), as write_series lays them
CENTRE, OUTER, INNER = (37.7, -2.11, 1.23), 30.17, 13.31


def ball(radius: float) -> np.ndarray:
    """Bool (z, y, x): the voxels whose centre is in a ball."""
    steps = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    places = [origin + step * i - c for i, step, origin, c in zip(steps, SPACING, ORIGIN, CENTRE, strict=True)]
    return sum(place**2 for place in places) <= radius**2


def circles(radius: float) -> list[Dataset]:
    """The ball's outline in each slice that it meets, so finely that no centre of a voxel lies between outline and circle."""
    turns = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    found = []
    for z in ORIGIN[0] + SPACING[0] * np.arange(SHAPE[0]):
        if (across := radius**2 - (z - CENTRE[0]) ** 2) > 0:
            x, y = (c + np.sqrt(across) * wave(turns) for c, wave in ((CENTRE[2], np.cos), (CENTRE[1], np.sin)))
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(turns)
            contour.ContourData = [f"{number:.6f}" for number in np.stack([x, y, np.full_like(x, z)], axis=1).ravel()]
            found.append(contour)
    return found


def structure_set(path: Path, series: str, rois: dict[str, list[Dataset]]) -> None:
    dataset = slice_of(np.zeros((4, 4)), (0, 0, 0), Modality="RTSTRUCT", PixelData=None, SOPClassUID=STRUCTURE_SET)
    dataset.file_meta.MediaStorageSOPClassUID, dataset.SeriesInstanceUID = STRUCTURE_SET, generate_uid()
    frame, study, of = Dataset(), Dataset(), Dataset()
    of.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [of], [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber, drawn.ContourSequence = number, name, number, contours
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    pydicom.dcmwrite(path, dataset)


def dicom(*overrides: str) -> Data:
    """The group data of kits.convert."""
    return checked("convert", ["data=dicom", "root=.", "output=out", *overrides]).data


def uid_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID)


def test_contours_of_balls_fill_the_voxels_of_the_balls(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "ct", kidney_pair(0)[0])
    rois = {"Kidney_L": circles(OUTER) + circles(OUTER / 2), "renal tumor": circles(INNER), "Liver": circles(20.0)}
    structure_set(tmp_path / "in" / "rs.dcm", uid_of(tmp_path / "in" / "ct"), rois)
    told = convert_dicom(dicom(), tmp_path / "in", tmp_path / "tree")
    assert "left out: ct: ROI 'Liver' is none of ours by its name; " in told
    labels = read_labels(tmp_path / "tree" / "ct" / "segmentation.nii.gz", allowed=range(4)).array
    expected = (ball(OUTER) ^ ball(OUTER / 2)).astype(np.uint8)
    expected[ball(INNER)] = 2
    assert expected.max() == 2
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(read_volume(tmp_path / "tree" / "ct" / "imaging.nii.gz").array, kidney_pair(0)[0])


def test_rois_are_what_the_configuration_says_before_what_their_names_say(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "ct", kidney_pair(0)[0])
    rois = {"Niere li": circles(OUTER), "GTV ": circles(INNER)}
    structure_set(tmp_path / "in" / "rs.dcm", uid_of(tmp_path / "in" / "ct"), rois)
    told = convert_dicom(dicom("data.rois={kidney:niere li,tumor:[GTV]}"), tmp_path / "in", tmp_path / "tree")
    assert "left out" not in told
    labels = read_labels(tmp_path / "tree" / "ct" / "segmentation.nii.gz", allowed=range(4)).array
    np.testing.assert_array_equal(labels, ball(OUTER).astype(np.uint8) + ball(INNER))
    with pytest.raises(KitsError, match=r"^data\.rois: 'gtv' stands there twice; give each name one meaning$"):
        dicom("data.rois={kidney:GTV,tumor:[gtv]}")


def test_a_segmentation_comes_back_on_the_grid_of_its_series(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    hu, labels = kidney_pair(0)
    labels[:2] = 0
    write_series(tmp_path / "in" / "ct", hu)
    write_series(tmp_path / "in" / "other", hu, series="other")
    (series, *_), _ = find_series(tmp_path / "in" / "ct", min_slices=4)
    write_dicom_seg(tmp_path / "in" / "seg.dcm", series.files, labels, CLASSES)
    told = convert_dicom(dicom(), tmp_path / "in", tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree").glob("*/")] == ["ct"]
    assert "left out: other: no segmentation or structure set is of it" in told
    np.testing.assert_array_equal(read_labels(tmp_path / "tree" / "ct" / "segmentation.nii.gz", allowed=range(4)).array, labels)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *(("Kidney", 1), ("kidney_right", 1), ("LT KIDNEY", 1), ("Kidneys", 1), ("Kidney Tumour", 2), ("renal cyst", 3)),
        *(("Liver", 0), ("GTV", 0), ("adrenal", 0), ("kidney fat", 0), ("", 0), ("L", 0)),
    ],
)
def test_what_a_name_means(name: str, label: int) -> None:
    assert class_of(name) == label


def test_what_fits_no_series_or_slice_is_one_line(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "ct", kidney_pair(0)[0])
    path, uid = tmp_path / "in" / "rs.dcm", uid_of(tmp_path / "in" / "ct")
    shifted = circles(OUTER)
    shifted[0].ContourData = [number + 1.0 for number in shifted[0].ContourData]
    point = circles(OUTER)[:1]
    point[0].ContourGeometricType = "POINT"
    for series, rois, words in (
        ("1.2.3", {"Kidney": circles(OUTER)}, r"no series with labels; .*ct: no segmentation.*rs\.dcm: its series is not there"),
        (uid, {"Liver": circles(OUTER)}, r"rs\.dcm: no ROI is a kidney by its name \('Liver'\)"),
        (uid, {"Kidney": point, "Tumor": circles(INNER)}, r"rs\.dcm: no contour of a kidney is closed and holds a voxel; .*"),
        (uid, {"Kidney": shifted}, r"rs\.dcm: 'Kidney' has a contour in no slice of its CT"),
    ):
        structure_set(path, series, rois)
        with pytest.raises(KitsError, match=words):
            convert_dicom(dicom(), tmp_path / "in", tmp_path / "tree")
    structure_set(path, uid, {"Kidney": circles(OUTER)})
    structure_set(tmp_path / "in" / "again.dcm", uid, {"Kidney": circles(OUTER)})
    with pytest.raises(KitsError, match="is of the same series"):
        convert_dicom(dicom(), tmp_path / "in", tmp_path / "tree")


def test_segments_too_are_what_the_configuration_says_and_a_name_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    hu, labels = kidney_pair(0)
    write_series(tmp_path / "in" / "ct", hu)
    (series, *_), _ = find_series(tmp_path / "in" / "ct", min_slices=4)
    write_dicom_seg(tmp_path / "in" / "seg.dcm", series.files, labels, CLASSES)
    segmentation = pydicom.dcmread(tmp_path / "in" / "seg.dcm")
    names = ["Organ", "Segment_2", "Segment_3"]
    for segment, name in zip(segmentation.SegmentSequence, names, strict=True):
        segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = name, "85756007"  # tissue: Slicer's own
    pydicom.dcmwrite(tmp_path / "in" / "seg.dcm", segmentation)
    with pytest.raises(
        KitsError, match=r"^data\.rois: no ROI or segment is called 'Orgn'; the names in 1 cases are 'Organ', 'Seg"
    ):
        convert_dicom(dicom("data.rois={kidney:Orgn}"), tmp_path / "in", tmp_path / "tree")
    with pytest.raises(KitsError, match=r"^data\.exclude: cp is no case of this data set; give ids"):
        convert_dicom(dicom("data.exclude=[cp]"), tmp_path / "in", tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    convert_dicom(dicom("data.rois={kidney:organ,tumor:[Segment_2]}"), tmp_path / "in", tmp_path / "tree")
    np.testing.assert_array_equal(read_labels(tmp_path / "tree" / "ct" / "segmentation.nii.gz", allowed=range(4)).array, labels)


def test_a_case_that_cannot_be_converted_is_named_and_the_others_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, radius in (("a", OUTER), ("b", OUTER), ("c", INNER)):
        write_series(tmp_path / "in" / name, kidney_pair(0)[0], series=name)
        structure_set(tmp_path / "in" / f"{name}.dcm", uid_of(tmp_path / "in" / name), {"Kidney": circles(radius)})
    shutil.copy(tmp_path / "in" / "b.dcm", tmp_path / "in" / "b_again.dcm")
    (tmp_path / "in" / "notes.txt").write_text("of the reader")
    told = r"1 of 3 cases could not be converted \(data\.skip_invalid=true leaves such out\), the first: b: .*b\.dcm: .* same s"
    with pytest.raises(KitsError, match=told):
        convert_dicom(dicom(), tmp_path / "in", tmp_path / "tree")
    said = capsys.readouterr().out
    assert said.startswith(f"2 cases in {tmp_path / 'tree'}\nleft out: {tmp_path / 'in' / 'notes.txt'}: ")
    assert f"\nleft out: b: {tmp_path / 'in' / 'b.dcm'}: " in said
    assert convert_dicom(dicom("data.skip_invalid=true"), tmp_path / "in", tmp_path / "tree") + "\n" == said
    assert sorted(path.name for path in (tmp_path / "tree").glob("*/")) == ["a", "c"]
    for name, radius in (("a", OUTER), ("c", INNER)):
        labels = read_labels(tmp_path / "tree" / name / "segmentation.nii.gz", allowed=range(4)).array
        np.testing.assert_array_equal(labels, ball(radius))


def test_labels_of_another_frame_of_reference_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "ct", kidney_pair(0)[0])
    structure_set(tmp_path / "in" / "rs.dcm", uid_of(tmp_path / "in" / "ct"), {"Kidney": circles(OUTER)})
    structures = pydicom.dcmread(tmp_path / "in" / "rs.dcm")
    structures.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    pydicom.dcmwrite(tmp_path / "in" / "rs.dcm", structures)
    with pytest.raises(KitsError, match=r"rs\.dcm: is of another frame of reference \(1\.2\.3\) than its series' .*ct; .*"):
        convert_dicom(dicom(), tmp_path / "in", tmp_path / "tree")
