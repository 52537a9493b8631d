"""Many frames in one DICOM file are slices like any others: in order, checked, and in HU by the rescale of each."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from kits.core.errors import KitsError
from kits.io import read_volume
from kits.io.series import find_series
from tests.conftest import kidney_pair
from tests.dicoms import group_of, multi_frame, slice_of, write_series

HU = kidney_pair(0)[0][:8].clip(-1024)
UP = [(-48.0, -30.0, 4.0 * k) for k in range(len(HU))]


def written(folder: Path, dataset: pydicom.Dataset, name: str = "frames.dcm") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(folder / name, dataset)
    return folder


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), (3, 1, 4, 0, 7, 2, 6, 5)], ids=["up", "down", "mixed"])
def test_frames_are_ordered_by_position(tmp_path: Path, order: range) -> None:
    chosen = list(order)
    folder = written(tmp_path / "ct", multi_frame(HU[chosen], [UP[k] for k in chosen]))
    for path in (folder, folder / "frames.dcm"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, HU)
        assert volume.spacing == (4.0, 1.5, 1.5)
        assert volume.grid.origin == UP[0]
        assert volume.grid.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_missing_frames_are_refused(tmp_path: Path) -> None:
    keep = [0, 1, 2, 5, 6, 7]
    folder = written(tmp_path, multi_frame(HU[keep], [UP[k] for k in keep]))
    with pytest.raises(KitsError, match=r"missing, doubled or uneven \(4.00 to 12.00 mm apart\)"):
        read_volume(folder)


def test_two_times_at_the_same_places_are_refused_by_that_name(tmp_path: Path) -> None:
    folder = written(tmp_path, multi_frame(np.concatenate([HU, HU + 3]), UP + UP))
    with pytest.raises(KitsError, match="every place holds 2 images"):
        read_volume(folder)


def test_tilted_frames_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, multi_frame(HU, [(x, y + 0.3 * z, z) for x, y, z in UP]))
    with pytest.raises(KitsError, match="gantry tilt"):
        read_volume(folder)


def test_every_frame_has_its_own_rescale(tmp_path: Path) -> None:
    dataset = multi_frame(HU, UP, RescaleSlope=None, RescaleIntercept=None)
    stored = []
    for k, (frame, group) in enumerate(zip(HU, dataset.PerFrameFunctionalGroupsSequence, strict=True)):
        slope = 1 + k % 2
        values = {"RescaleSlope": slope, "RescaleIntercept": -1024 - slope * k}
        group.PixelValueTransformationSequence = group_of(values).PixelValueTransformationSequence
        stored.append((frame.astype(int) + 1024 + slope * k) // slope)
    dataset.PixelData = np.array(stored, np.int16).tobytes()
    want = np.array([frame * (1 + k % 2) - 1024 - (1 + k % 2) * k for k, frame in enumerate(stored)])
    np.testing.assert_array_equal(read_volume(written(tmp_path, dataset)).array, want)


def test_frames_may_say_all_for_themselves(tmp_path: Path) -> None:
    dataset = multi_frame(HU, UP)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.update(dataset.SharedFunctionalGroupsSequence[0])
    del dataset.SharedFunctionalGroupsSequence
    np.testing.assert_array_equal(read_volume(written(tmp_path, dataset)).array, HU)
    for group in dataset.PerFrameFunctionalGroupsSequence:  # where single frames have it, as some writers do
        del group.PixelValueTransformationSequence
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    np.testing.assert_array_equal(read_volume(written(tmp_path, dataset)).array, HU)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames_are_read(tmp_path: Path, syntax: str) -> None:
    dataset = multi_frame(HU[::-1], UP[::-1])
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, "MONOCHROME1"
    dataset.compress(syntax)
    np.testing.assert_array_equal(read_volume(written(tmp_path, dataset)).array, HU)


def test_a_concatenation_is_one_stack_and_so_are_files_of_one_frame_each(tmp_path: Path) -> None:
    written(tmp_path / "parts", multi_frame(HU[5:], UP[5:]), "1")
    written(tmp_path / "parts", multi_frame(HU[:5], UP[:5]), "2")
    np.testing.assert_array_equal(read_volume(tmp_path / "parts").array, HU)
    for k, place in enumerate(UP):
        written(tmp_path / "single", multi_frame(HU[k : k + 1], [place]), str(k))
    np.testing.assert_array_equal(read_volume(tmp_path / "single").array, HU)


def test_frames_without_places_or_sizes_are_named(tmp_path: Path) -> None:
    few = multi_frame(HU, UP)
    del few.PerFrameFunctionalGroupsSequence[-1]
    for name, dataset, words in (
        ("few", few, "frames without positions"),
        ("old", slice_of(HU[0], UP[0], NumberOfFrames=8, PixelData=HU.tobytes()), "frames without positions"),
        ("flat", multi_frame(HU, UP, PixelSpacing=None), "without a pixel spacing"),
        ("planes", turned(), "mixed: images of 2 planes"),
    ):
        found, (skipped,) = find_series(written(tmp_path / name, dataset), min_slices=4)
        assert not found
        assert words in str(skipped)


@pytest.mark.parametrize("single", [False, True])
def test_more_images_than_the_header_describes_are_refused(tmp_path: Path, single: bool) -> None:
    folder = tmp_path / "ct"
    if single:
        write_series(folder, HU, PhotometricInterpretation="MONOCHROME1")
        dataset = pydicom.dcmread(folder / "axial-000.dcm")
    else:
        dataset = multi_frame(HU, UP)
    dataset.PixelData *= 2
    written(folder, dataset, "axial-000.dcm")
    with pytest.raises(KitsError, match=f"holds {2 if single else 16} images, and its header describes {1 if single else 8};"):
        read_volume(folder)


def turned() -> pydicom.Dataset:
    dataset = multi_frame(HU, UP)
    turned = group_of({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]})
    for group in dataset.PerFrameFunctionalGroupsSequence[:4]:
        group.PlaneOrientationSequence = turned.PlaneOrientationSequence
    return dataset


def test_frames_and_single_slices_are_two_series_of_one_folder(tmp_path: Path) -> None:
    dataset = multi_frame(HU, UP)
    dataset.SeriesInstanceUID = generate_uid()
    write_series(written(tmp_path, dataset), HU)
    found, _ = find_series(tmp_path, min_slices=4)
    assert sorted(len(series.files) for series in found) == [1, 8]


def test_highdicoms_frames_and_ours_are_the_same(tmp_path: Path) -> None:
    """Single slices, joined by another library's converter, read by that library and here: an oblique one, stored in disorder."""
    highdicom = pytest.importorskip("highdicom")
    direction = [0.98, 0.198997, 0, -0.198997, 0.98, 0]
    slices = [
        slice_of(
            HU[k], UP[k], ImageOrientationPatient=direction, InstanceNumber=k + 1, PatientPosition="HFS", SpacingBetweenSlices=4
        )
        for k in (2, 0, 1, 3, 7, 6, 5, 4)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = highdicom.legacy.LegacyConvertedEnhancedCTImage(slices, generate_uid(), 1, generate_uid(), 1)
        joined.save_as(tmp_path / "joined.dcm")
        theirs = highdicom.imread(tmp_path / "joined.dcm").get_volume()
    ours = read_volume(tmp_path)
    np.testing.assert_array_equal(ours.array, HU)
    np.testing.assert_array_equal(theirs.array if theirs.affine[2, 0] > 0 else theirs.array[::-1], HU)
    assert ours.spacing == pytest.approx(theirs.spacing)
    assert ours.grid.origin == UP[0]
    np.testing.assert_allclose(np.reshape(ours.grid.direction, (3, 3))[:, :2].T.ravel(), direction)
