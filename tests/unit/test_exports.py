"""What PACS exports do to a CT: it is read to the right HU and mm all the same, or named with what is wrong."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from kits.core.errors import KitsError
from kits.data.scans import find_inputs
from kits.io import read_series, read_volume
from kits.io.series import Series, find_series
from tests.conftest import kidney_pair
from tests.dicoms import multi_frame, slice_of, write_series

HU = kidney_pair(0)[0][:8].clip(-1024)


def only(folder: Path) -> Series:
    (series,), skipped = find_series(folder, min_slices=4)
    assert not skipped
    return series


def change(folder: Path, how: Callable[[int, FileDataset], object], pattern: str = "*.dcm") -> Path:
    """Every slice of a folder through `how`, which is told its number from the feet up."""
    for path in folder.glob(pattern):
        dataset = pydicom.dcmread(path)
        how(round(float(dataset.ImagePositionPatient[2]) / 4), dataset)
        dataset.save_as(path)
    return folder


def bare(dataset: FileDataset, *, implicit: bool, little: bool) -> bytes:
    """A data set as old software writes it: no preamble, no word on its encoding."""
    del dataset.file_meta
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    if not little:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    write_dataset(stream, dataset)
    return stream.getvalue()


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_files_without_a_preamble_are_read_beside_others(tmp_path: Path, implicit: bool, little: bool) -> None:
    write_series(tmp_path / "new", HU[::-1])
    write_series(tmp_path / "old", HU, series="old")
    for path in (tmp_path / "old").iterdir():
        path.write_bytes(bare(pydicom.dcmread(path), implicit=implicit, little=little))
        path.rename(path.with_suffix(""))
    found, skipped = find_series(tmp_path, min_slices=4)
    assert not skipped
    assert [series.folder.name for series in found] == ["new", "old"]
    np.testing.assert_array_equal(read_series(found[1].folder, found[1].files).array, HU)


def test_directions_and_spacings_that_differ_in_the_seventh_digit_are_one_plane(tmp_path: Path) -> None:
    """At the edge of what three or four digits tell apart, where rounding would make two kinds of it."""
    write_series(tmp_path, HU)

    def jitter(k: int, dataset: FileDataset) -> None:
        tilt = 0.0005 + (-1) ** k * 1e-7
        dataset.ImageOrientationPatient = [0.999999875, tilt, 0, -tilt, 0.999999875, 0]
        dataset.PixelSpacing = [1.50005 + (-1) ** k * 1e-7] * 2

    series = only(change(tmp_path, jitter))
    volume = read_series(series.folder, series.files)
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.spacing == pytest.approx((4, 1.50005, 1.50005), abs=1e-6)


def test_positions_rounded_to_a_tenth_are_even_and_a_missing_thin_slice_is_not(tmp_path: Path) -> None:
    hu = np.tile(HU, (5, 1, 1))
    places = [(0.0, 0.0, round(0.625 * k - 600, 1)) for k in range(len(hu))]
    volume = read_volume(write_series(tmp_path / "all", hu, positions=places))
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.spacing[0] == pytest.approx(0.625, abs=5e-4)
    for gone in (1, 20, 38):
        folder = write_series(tmp_path / str(gone), np.delete(hu, gone, 0), positions=[*places[:gone], *places[gone + 1 :]])
        with pytest.raises(KitsError, match="missing, doubled or uneven"):
            read_volume(folder)


def test_a_spacing_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    """Each step is within a tenth of the others, and the last slice 6 mm off all the same."""
    places = [(0.0, 0.0, 4.0 * k if k < 20 else 80 + 4.3 * (k - 20)) for k in range(40)]
    with pytest.raises(KitsError, match="missing, doubled or uneven"):
        read_volume(write_series(tmp_path, np.tile(HU, (5, 1, 1)), positions=places))


@pytest.mark.parametrize("sign", [0, 1])
def test_monochrome1_is_a_matter_of_display(tmp_path: Path, sign: int) -> None:
    write_series(tmp_path / "plain", HU, PhotometricInterpretation="MONOCHROME1", PixelRepresentation=sign)
    series = only(tmp_path / "plain")
    assert "MONOCHROME1" in series.notes[0]
    np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)
    change(tmp_path / "plain", lambda _, dataset: dataset.compress(RLELossless, generate_instance_uid=False))
    np.testing.assert_array_equal(read_volume(tmp_path / "plain").array, HU)


def test_instances_twice_are_dropped_and_named_whatever_their_identifiers(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", HU)
    for k, path in enumerate(sorted((tmp_path / "ct").iterdir())):
        copy = pydicom.dcmread(path)
        if k % 2:
            copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        copy.save_as(path.with_name(f"copy_{path.name}"))
    (series,), skipped = find_series(tmp_path, min_slices=4)
    assert all("a copy of another file" in item.why for item in skipped)
    assert len({item.path for item in skipped}.union(series.files)) == 16
    np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)


def test_two_times_in_one_series_are_refused_though_all_their_identifiers_are_one(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", HU, SOPInstanceUID="1.2.3")
    for path in sorted((tmp_path / "ct").iterdir()):
        later = pydicom.dcmread(path)
        later.PixelData = (later.pixel_array + 7).tobytes()
        later.save_as(path.with_name(f"later_{path.name}"))
    series = only(tmp_path)
    with pytest.raises(KitsError, match="every place holds 2 images, so export each time point"):
        read_series(series.folder, series.files)


def test_a_series_in_two_folders_is_one_patient(tmp_path: Path) -> None:
    places = [(0.0, 0.0, 4.0 * k) for k in range(8)]
    for name, part in (("halves", [slice(0, 4), slice(4, 8)]), ("turns", [slice(0, 8, 2), slice(1, 8, 2)])):
        for k, own in enumerate(part):
            write_series(tmp_path / name / str(k), HU[own], positions=places[own])
        series = only(tmp_path / name)
        assert series.folder == tmp_path / name
        assert "8 files lie in 2 folders" in series.notes[0]
        np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)
    assert list(find_inputs(tmp_path / "turns").scans) == ["turns"]


def test_folders_of_one_series_that_are_scans_of_their_own_stay_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "times" / "1", HU)
    write_series(tmp_path / "times" / "2", HU + 5)
    found, _ = find_series(tmp_path / "times", min_slices=4)
    assert [series.folder.name for series in found] == ["1", "2"]
    assert all("other folders hold slices of the same series" in series.notes[0] for series in found)
    write_series(tmp_path / "people" / "1", HU[:4], PatientID="1")
    write_series(tmp_path / "people" / "2", HU[4:], PatientID="2", positions=[(-48.0, -48.0, 16.0 + 4 * k) for k in range(4)])
    found, _ = find_series(tmp_path / "people", min_slices=4)
    assert [len(series.files) for series in found] == [4, 4]
    (tmp_path / "copy").mkdir()
    for folder in ("a", "b"):
        write_series(tmp_path / "copy" / folder, HU)
    (series,), skipped = find_series(tmp_path / "copy", min_slices=4)
    assert (series.folder.name, len(skipped)) == ("a", 8)


@pytest.mark.parametrize("uid", [SecondaryCaptureImageStorage, "1.2.3.4.5", None])
def test_a_class_that_an_anonymiser_changed_is_told(tmp_path: Path, uid: str | None) -> None:
    write_series(tmp_path / "ct", HU, SOPClassUID=uid, PixelSpacing=[1.25, 0.75])
    series = only(tmp_path)
    assert "not CT; it is taken as CT by its modality" in series.notes[0]
    volume = read_series(series.folder, series.files)
    np.testing.assert_array_equal(volume.array, HU)
    assert volume.spacing == (4.0, 1.25, 0.75)
    write_series(tmp_path / "nothing", HU, SOPClassUID=uid or "1.2", RescaleSlope=None, series="picture")
    assert "no rescale to HU" in str(find_series(tmp_path / "nothing", min_slices=4)[1])


@pytest.mark.parametrize("modality", [None, "OT"])
def test_a_modality_that_an_anonymiser_took_is_told(tmp_path: Path, modality: str | None) -> None:
    series = only(write_series(tmp_path, HU, Modality=modality))
    assert "it is taken as CT by its class" in series.notes[0]
    np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)


def test_slices_that_are_stored_differently_have_one_scale(tmp_path: Path) -> None:
    """The first slice decides on the type for ITK, which would take all others into it."""

    def store(k: int, dataset: FileDataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = [(1, -1024), (1, -1100), (0.5, -2048)][k % 3]
        stored = (HU[k] - float(dataset.RescaleIntercept)) / float(dataset.RescaleSlope)
        dataset.PixelRepresentation = k % 2
        dataset.PixelData = stored.astype(np.int16).tobytes()

    series = only(change(write_series(tmp_path, HU), store))
    np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)
    change(tmp_path, lambda k, dataset: k % 3 or dataset.__delattr__("RescaleSlope"))
    with pytest.raises(KitsError, match="only some of its slices say how to rescale"):
        read_volume(tmp_path)


def test_encodings_of_single_slices(tmp_path: Path) -> None:
    def deflate(_: int, dataset: FileDataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    def garbage(k: int, dataset: FileDataset) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) | np.uint16((k % 16) << 12)).tobytes()

    for how in (deflate, garbage):
        folder = change(write_series(tmp_path / how.__name__, HU), how)
        np.testing.assert_array_equal(read_volume(folder).array, HU)
    folder = write_series(tmp_path / "big", HU)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(read_volume(folder).array, HU)
    odd = {"InstanceNumber": None, "SpacingBetweenSlices": -4, "SeriesNumber": None, "SliceThickness": None}
    np.testing.assert_array_equal(read_volume(write_series(tmp_path / "odd", HU[::-1], **odd)).array, HU[::-1])


def test_values_that_are_no_hu_are_named(tmp_path: Path) -> None:
    for name, changes, words in (
        ("zeff", {"RescaleType": "Z_EFF"}, "values in Z_EFF, not HU"),
        ("lut", {"ModalityLUTSequence": [pydicom.Dataset()]}, "a unit of a lookup table"),
        ("zero", {"RescaleSlope": 0}, "no rescale to HU"),
        ("shifted", {"BitsStored": 12, "HighBit": 15}, "pixels of 12 bits whose highest is 15"),
        ("nowhere", {"ImagePositionPatient": [0, 0, float("nan")]}, "damaged orientation|damaged DICOM"),
    ):
        _, skipped = find_series(write_series(tmp_path / name, HU, **changes), min_slices=4)
        assert any(word in str(skipped[0]) for word in words.split("|")), skipped


def test_odd_pictures_in_a_series_are_left_out_by_name(tmp_path: Path) -> None:
    write_series(tmp_path, HU)
    scout = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    pydicom.dcmwrite(tmp_path / "scout", slice_of(HU[0], (0, 0, 0), **scout))
    color = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PixelData": bytes(64 * 64 * 6)}
    pydicom.dcmwrite(tmp_path / "dose", slice_of(HU[0], (0, 0, 0), **color))
    (series,), skipped = find_series(tmp_path, min_slices=4)
    assert {item.path.name: item.why.split("): ")[1] for item in skipped} == {
        "dose": "in color (RGB), not HU, left out",
        "scout": "of another plane or size than its other slices (a scout?), left out",
    }
    left_out = ("in color (RGB), not HU", "of another plane or size")
    assert series.notes == tuple(f"1 file(s) of it left out: {why}" for why in left_out) == read_volume(tmp_path).grid.notes
    np.testing.assert_array_equal(read_series(series.folder, series.files).array, HU)


def test_whatever_lies_in_a_folder_is_segmented_or_named(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", HU)
    others = {
        "notes.txt": b"hello",
        "report.pdf": b"%PDF-1.4",
        "picture.png": b"\x89PNG\r\n\x1a\n",
        "empty.dcm": b"",
        "short": b"\x08\0",
        "cut.dcm": bytes(128) + b"DICM\x02\0",
        ".hidden": b"x",
        "below.nii.gz": b"x",
        "old.dat": b"\x08\0\x05\0CS\x0a\0ISO_IR 100",
    }
    for name, content in others.items():
        (tmp_path / "ct" / name).write_bytes(content)
    os.mkfifo(tmp_path / "ct" / "pipe")
    (tmp_path / "ct" / "broken").symlink_to("nowhere")
    (tmp_path / "ct" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "ct" / ".git").mkdir()
    (tmp_path / "lost").mkdir()
    directory = slice_of(HU[0], (0, 0, 0), SeriesInstanceUID=None, Rows=None)
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    pydicom.dcmwrite(tmp_path / "ct" / "DICOMDIR", directory)
    for modality in ("RTSTRUCT", "SR"):
        write_series(tmp_path / modality, HU[:1], series=modality, Modality=modality, Rows=None, PixelData=None)
    inputs = find_inputs(tmp_path)
    assert list(inputs.scans) == ["ct"]
    named = {item.path.name: item.why for item in inputs.skipped}
    assert set(named) == {*others, "pipe", "broken", "again", ".git", "DICOMDIR", "RTSTRUCT", "SR", "lost"}
    assert "an empty folder" in named["lost"]
    assert "table of contents" in named["DICOMDIR"]
    assert "0 bytes" in named["empty.dcm"]
    assert "an image file in a folder below" in named["below.nii.gz"]
    assert all("damaged DICOM file" in named[name] for name in ("short", "cut.dcm", "old.dat"))
    np.testing.assert_array_equal(inputs.scans["ct"].read().array, HU)


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    write_series(tmp_path / "store" / "ct", HU)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "patient").symlink_to(tmp_path / "store", target_is_directory=True)
    assert list(find_inputs(tmp_path / "in").scans) == ["patient_ct"]


def test_a_file_of_many_frames_is_an_input_of_its_own_and_a_lone_slice_is_not(tmp_path: Path) -> None:
    places = [(0.0, 0.0, 4.0 * k) for k in range(8)]
    pydicom.dcmwrite(tmp_path / "frames.dcm", multi_frame(HU, places))
    (tmp_path / "list.txt").write_text("frames.dcm\n")
    for path in (tmp_path / "frames.dcm", tmp_path / "list.txt"):
        scans = find_inputs(path).scans
        np.testing.assert_array_equal(scans["frames"].read().array, HU)
        assert scans["frames"].files == (tmp_path / "frames.dcm",)
    pydicom.dcmwrite(tmp_path / "slice.dcm", slice_of(HU[0], (0, 0, 0)))
    with pytest.raises(KitsError, match="only one slice"):
        find_inputs(tmp_path / "slice.dcm")
    with pytest.raises(KitsError, match="only one slice"):
        read_volume(tmp_path / "slice.dcm")
