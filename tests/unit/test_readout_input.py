"""What the read-out takes: label maps under any known name and number, DICOM segmentations, parts of a CT; what it refuses."""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

import kits
from kits.config.composing import checked
from kits.core.errors import KitsError
from kits.core.labels import CLASSES
from kits.io import read_labels, read_series, write_labels
from kits.io.series import find_series
from kits.prediction.dicom_labels import read_dicom_seg
from kits.prediction.dicom_seg import write_dicom_seg
from kits.readout.cohort import measure, measure_map, rounded
from kits.readout.maps import LabelMap, find_maps
from kits.readout.measuring import prediction
from kits.volume import Grid, Volume, stored_order
from tests.conftest import kidney_pair, write_case
from tests.dicoms import write_series
from tests.predicting import command, write_checkpoints
from tests.unit.test_readout import body

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def volume_of(array: np.ndarray, spacing: tuple[float, float, float] = (4.0, 1.5, 1.5)) -> Volume:
    z, y, x = array.shape
    return Volume(array, spacing, Grid((x, y, z), spacing[::-1], (-48.0, -48.0, 0.0), IDENTITY))


def written_series(folder: Path, labels: np.ndarray, **changes: object) -> tuple[Volume, tuple[Path, ...]]:
    """A CT series of these labels' size, 4 x 1.5 x 1.5 mm, as it is read."""
    write_series(folder, kidney_pair(0, labels.shape)[0], **changes)  # type: ignore[arg-type]
    (series,), _ = find_series(folder, min_slices=4)
    return read_series(series.folder, series.files), series.files


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "direction", [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [0, 1, 0, 0, 0, -1]], ids=["axial", "prone", "sagittal"]
)
def test_a_dicom_segmentation_is_its_label_map(tmp_path: Path, direction: list[float]) -> None:
    pytest.importorskip("highdicom")
    labels = kidney_pair(0)[1]
    labels[9, 20:24, 20:24] = 3
    places = [list(4.0 * k * np.cross(direction[:3], direction[3:])) for k in range(len(labels))]
    scan, files = written_series(tmp_path / "ct", labels, positions=places, ImageOrientationPatient=direction)
    own = np.zeros(scan.array.shape, np.uint8)
    stored_order(own, scan.grid)[...] = labels
    write_dicom_seg(tmp_path / "seg.dcm", files, labels, CLASSES)
    found, notes = read_dicom_seg(tmp_path / "seg.dcm")
    assert len(notes) == 1
    assert "give its CT" in notes[0]
    assert found.spacing == pytest.approx(scan.spacing)
    (job,) = find_maps(tmp_path / "seg.dcm", tmp_path / "ct", None, label_name="segmentation.nii.gz")
    read, told = job.read()
    reading, on_ct = measure(read, scan, "seg", told)
    np.testing.assert_array_equal(on_ct.array, own)
    assert reading.tumors == kits.measure(own, scan).tumors
    (alone,) = kits.measure(found).tumors
    assert alone.side == reading.tumors[0].side
    assert (alone.volume_ml, alone.axial_mm) == pytest.approx((reading.tumors[0].volume_ml, reading.tumors[0].axial_mm))


@pytest.mark.filterwarnings("ignore")
def test_segments_count_by_their_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("highdicom")
    labels = kidney_pair(0)[1]
    _, files = written_series(tmp_path / "ct", labels)
    folder = tmp_path / "objects"
    write_dicom_seg(folder / "seg.dcm", files, labels, CLASSES[:3])
    header = pydicom.dcmread(folder / "seg.dcm")
    kidney, tumor = header.SegmentSequence
    kidney.SegmentLabel, tumor.SegmentLabel = "tumor", "thing"
    kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue = "9846003"  # right kidney
    header.save_as(folder / "other.dcm")
    found, _ = read_dicom_seg(folder / "other.dcm")
    assert np.bincount(found.array.ravel())[1:].tolist() == np.bincount(labels.ravel())[1:].tolist()
    tumor.AnatomicRegionSequence[0].CodeValue = "10200004"  # liver
    header.save_as(folder / "liver.dcm")
    found, notes = read_dicom_seg(folder / "liver.dcm")
    assert found.array.max() == 1
    assert notes[0].startswith("segment 'thing' is left out")
    kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue = "10200004"
    header.save_as(folder / "none.dcm")
    with pytest.raises(KitsError, match=r"no segment is a kidney, a tumor or a cyst by its code \('tumor', 'thing'\)"):
        read_dicom_seg(folder / "none.dcm")
    maps = find_maps(folder, None, None, label_name="segmentation.nii.gz")
    assert {job.name for job in maps} == {"seg", "other", "liver", "none"}
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(KitsError, match=r"seg.dcm: is a DICOM segmentation, which needs highdicom; pip install"):
        read_dicom_seg(folder / "seg.dcm")


def test_names_of_predictions_find_their_ct(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    write_case(tmp_path / "scans", "case_00003", hu, labels)
    for name in ("prediction_00003", "other_scan"):
        write_labels(tmp_path / "maps" / f"{name}.nii.gz", labels, volume_of(labels).grid)
    (job,) = find_maps(tmp_path / "maps", tmp_path / "scans", ["case_00003"], label_name="segmentation.nii.gz")
    assert job.scan is not None
    assert (job.name, job.path.name, job.scan.name) == ("case_00003", "prediction_00003.nii.gz", "case_00003")
    write_case(tmp_path / "scans", "case_00004", hu, labels)
    with pytest.raises(KitsError, match="no CT of other_scan"):
        find_maps(tmp_path / "maps", tmp_path / "scans", None, label_name="segmentation.nii.gz")
    write_labels(tmp_path / "maps" / "case_00003.nii.gz", labels, volume_of(labels).grid)
    with pytest.raises(KitsError, match="are both of case_00003; take one out"):
        find_maps(tmp_path / "maps", None, ["case_00003"], label_name="segmentation.nii.gz")


def test_other_ids_mean_what_the_configuration_says(tmp_path: Path) -> None:
    labels = kidney_pair(0)[1]
    other = np.array([0, 7, 1], np.uint8)[labels]
    other[:, :, 40:][other[:, :, 40:] == 7] = 6
    write_labels(tmp_path / "own.nii.gz", labels, volume_of(labels).grid)
    write_labels(tmp_path / "other.nii.gz", other, volume_of(labels).grid)
    ids = checked("measure", ["input=x", "output=x", "ids.kidney=[6,7]", "ids.tumor=[1]", "ids.cyst=[]"]).ids.model_dump()
    found = measure_map(LabelMap("other", tmp_path / "other.nii.gz"), tmp_path / "cases", ids=ids)
    expected = measure_map(LabelMap("own", tmp_path / "own.nii.gz"), tmp_path / "cases")
    assert (found["kidneys"], found["tumors"]) == (expected["kidneys"], expected["tumors"])
    with pytest.raises(KitsError, match="7"):
        measure_map(LabelMap("other", tmp_path / "other.nii.gz"), tmp_path / "cases")
    with pytest.raises(KitsError, match="no id twice"):
        checked("measure", ["input=x", "output=x", "ids.cyst=[2]"])


def test_labels_of_another_grid_than_the_ct() -> None:
    hu, labels = kidney_pair(0)
    scan = volume_of(hu)
    whole = kits.measure(volume_of(labels), scan)
    assert whole.flags == []
    part = labels[2:-2, 3:]
    cut = Volume(part, scan.spacing, Grid(part.shape[::-1], scan.grid.spacing, (-48.0, -43.5, 8.0), IDENTITY))
    assert kits.measure(cut, scan).tumors == whole.tumors
    with pytest.raises(KitsError, match="is no part of it; the two are not one case"):
        kits.measure(volume_of(labels[2:-2], (4.0, 1.6, 1.5)), scan)
    other = kits.measure(volume_of(labels, (2.0, 1.5, 1.5)), scan)
    assert "its spacing is (2, 1.5, 1.5) mm (z, y, x), not (4, 1.5, 1.5); the CT's is taken for both" in other.flags[0]
    assert other.tumors == whole.tumors


def test_a_mirrored_header_beside_its_ct_is_told(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    scan = volume_of(hu)
    # Stored as the CT is, under a header that is mirrored in error.
    header = Grid(scan.grid.size, scan.grid.spacing, scan.grid.origin, (-1.0, *IDENTITY[1:]))
    write_labels(tmp_path / "mirrored.nii.gz", labels[:, :, ::-1], header)
    mirrored = read_labels(tmp_path / "mirrored.nii.gz", allowed=range(4))
    (alone,) = kits.measure(mirrored).tumors
    reading = kits.measure(mirrored, scan)
    assert "its header is mirrored left-right" in reading.flags[0]
    assert (alone.side, reading.tumors[0].side) == ("right", "left")
    assert reading.tumors == kits.measure(labels, scan).tumors


def test_a_mirrored_affine_that_is_right_changes_nothing(tmp_path: Path) -> None:
    labels = kidney_pair(0)[1]
    for name, sign in (("one", -1), ("other", 1)):  # nibabel's x runs to the right
        stored = np.ascontiguousarray(labels.transpose(2, 1, 0)[::-sign])
        nibabel.save(nibabel.Nifti1Image(stored, np.diag([sign * 1.5, -1.5, 4.0, 1.0])), tmp_path / f"{name}.nii.gz")
    one, other = (kits.measure(read_labels(tmp_path / f"{name}.nii.gz", allowed=range(4))) for name in ("one", "other"))
    assert one.tumors == other.tumors
    assert one.tumors[0].side == "left"


def test_no_volume_no_spacing_no_labels(tmp_path: Path) -> None:
    labels = kidney_pair(0)[1]
    nibabel.save(nibabel.Nifti1Image(labels[5], np.eye(4)), tmp_path / "flat.nii.gz")
    with pytest.raises(KitsError, match=r"is 2D.*give one 3D image"):
        measure_map(LabelMap("flat", tmp_path / "flat.nii.gz"), tmp_path)
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n\n"
    (tmp_path / "none.nrrd").write_bytes(header + bytes(64))
    with pytest.raises(KitsError, match="gives no spacing"):
        measure_map(LabelMap("none", tmp_path / "none.nrrd"), tmp_path)
    assert kits.measure(volume_of(labels, (1.0, 1.0, 1.0))).flags[0].startswith("spacing 1 x 1 x 1 mm: ")
    with pytest.raises(KitsError, match="is not that of a CT; mend the header"):
        kits.measure(volume_of(labels, (0.004, 0.0015, 0.0015)))
    with pytest.raises(KitsError, match="one slice"):
        kits.measure(volume_of(labels[:1]))
    with pytest.raises(KitsError, match="has no spacing; give the volume"):
        kits.measure(labels)
    with pytest.raises(KitsError, match="but the volume has"):
        kits.measure(labels[1:], volume_of(labels))
    with pytest.raises(KitsError, match="holds the label 9; known are 0 background, 1 kidney"):
        kits.measure(volume_of(np.where(labels == 2, 9, labels)))


def test_hundreds_of_specks_and_no_tumor() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    clean = kits.measure(volume_of(labels, (2.0, 1.0, 1.0)))
    labels[2, 1:120:8, 2:240:12] = 2
    assert np.count_nonzero(labels[2] == 2) == 300
    reading = kits.measure(volume_of(labels, (2.0, 1.0, 1.0)))
    assert reading.flags == ["specks: 300 pieces of tumor under 0.1 mL, 0.60 mL, are not measured"]
    assert reading.tumors == clean.tumors
    labels[labels == 2] = 0
    reading = kits.measure(volume_of(labels, (2.0, 1.0, 1.0)))
    assert (reading.tumors, reading.flags) == ([], [])
    assert [kidney.tumor_ml for kidney in reading.kidneys] == [0, 0]


def test_both_kidneys_joined_by_a_tumor() -> None:
    labels = body(10.0, (0.0, 0.0, 30.0))
    z, y, x = labels.shape
    labels[z // 2 - 3 : z // 2 + 3, y // 2 - 4 : y // 2 + 4, 60 : x - 60] = 2
    reading = kits.measure(volume_of(labels, (2.0, 1.0, 1.0)))
    assert all("joined: both kidneys are one region, by a tumor" in kidney.flags for kidney in reading.kidneys)
    assert all(kidney.present for kidney in reading.kidneys)
    assert any("joined" in flag for tumor in reading.tumors for flag in tumor.flags)


@pytest.mark.slow
def test_ct_with_checkpoints_is_predicted_first(tmp_path: Path) -> None:
    write_case(tmp_path / "scans", "case_00003", *kidney_pair(0))
    given = [*write_checkpoints(tmp_path / "a, b"), f"input={tmp_path / 'scans'}", f"output={tmp_path / 'out'}"]
    stale = write_case(tmp_path / "earlier", "case_00009", *kidney_pair(1)) / "segmentation.nii.gz"
    (tmp_path / "out" / "predictions").mkdir(parents=True)
    stale.rename(tmp_path / "out" / "predictions" / "case_00009.nii.gz")  # of an earlier input, and not of this one
    more = ["+predict.device=cpu", "+predict.min_component_ml=0", "pages=false", "workers=1"]
    said = command(*given, *more, module="measure")
    assert said.returncode == 0, said.stderr
    content = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert [case["case"] for case in content["cases"]] == ["case_00003"]
    labels = read_labels(tmp_path / "out" / "predictions" / "case_00003.nii.gz", allowed=range(3))
    volume = kits.read(tmp_path / "scans" / "case_00003" / "imaging.nii.gz")
    expected = rounded(kits.measure(labels, volume).to_dict())
    assert content["cases"][0]["kidneys"] == expected["kidneys"]
    again = command(*given, *more, module="measure")
    assert "1 of 1 inputs are finished and skipped" in again.stdout
    assert "1 of 1 label maps are measured and skipped" in again.stdout


def test_one_checkpoint_is_not_enough(tmp_path: Path) -> None:
    options = checked("measure", ["input=x", "output=x", "coarse=a.ckpt"])
    with pytest.raises(KitsError, match="fine: no value given; add fine=CKPT, or leave both out for label maps"):
        prediction(options)
    with pytest.raises(KitsError, match="image: with coarse= and fine= the input is the CT itself"):
        prediction(options.model_copy(update={"image": "y"}))


def test_the_name_is_a_function_whatever_was_imported() -> None:
    import kits.measure

    labels = kidney_pair(0)[1]
    assert kits.measure(volume_of(labels)).tumors[0].side == "left"
