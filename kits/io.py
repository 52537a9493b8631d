"""Files to Volumes and back: NIfTI (and whatever else ITK reads) and DICOM series in, label maps out, written atomically.

ITK reads a truncated or damaged .nii.gz without complaint and fills the rest with what it has, so the bytes are checked here.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from kits.errors import KitsError
from kits.labels import CYST
from kits.volume import Grid, Volume, from_image, to_image

# What ITK warns about on stderr is either checked here and raised (uneven slices, no series) or of no consequence (header codes).
sitk.ProcessObject.SetGlobalWarningDisplay(False)

HU_RANGE = (-32768, 32767)

_NOT_FINITE = "{}: has voxels that are NaN or infinite; replace them with air (-1024 HU) or background"


def read_volume(path: str | Path) -> Volume:
    """A CT scan in HU from an image file or a folder that holds one DICOM series.

    Returns:
        Volume with an int16 array (z, y, x): other types are rounded to whole HU and clipped to [-32768, 32767].

    Raises:
        KitsError: no such file, damaged, not 3D, not one DICOM series, uneven slices, sheared axes, or NaN voxels.
    """
    path = Path(path)
    image = _read_dicom(path) if path.is_dir() else _read_file(path)
    return from_image(_to_hu(image, path))


def read_labels(path: str | Path, *, allowed: Collection[int]) -> Volume:
    """A label map as a Volume of uint8 (z, y, x), whatever integer or float type the file has.

    Raises:
        KitsError: as `read_volume`, or a voxel is not one of the `allowed` values (each 0 to 255).
    """
    path = Path(path)
    image = _read_file(path)
    values = sitk.GetArrayViewFromImage(image)
    unknown = sorted(_distinct(values) - {float(value) for value in allowed})
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        remedy = "3 is a cyst, which only data=kits21 and data=kits23 have" if unknown == [CYST] else "correct the label map"
        raise KitsError(f"{path}: label values {shown} are not among {sorted(allowed)}; {remedy}")
    return from_image(image if image.GetPixelID() == sitk.sitkUInt8 else sitk.Cast(image, sitk.sitkUInt8))


def read_geometry(path: str | Path) -> Grid:
    """The geometry of an image file from its header alone.

    Raises:
        KitsError: no such file, not an image, not 3D, or sheared axes.
    """
    reader = _open(Path(path))
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def check_file(path: Path) -> None:
    """Raise KitsError where an image file is not whole: it is read to its end, but no voxel is kept."""
    _check_file(path, *_promise(_open(path)))


def write_labels(path: str | Path, array: np.ndarray, grid: Grid) -> None:
    """Write a label map (z, y, x) in LPS order as .nii.gz in the geometry `grid`; uint8 in the file.

    Raises:
        KitsError: see `write_volume`.
        ValueError: labels outside 0 to 255, or of another shape than the grid.
    """
    if array.dtype != np.uint8:
        labels = array.astype(np.uint8)
        if not np.array_equal(labels, array):
            raise ValueError("labels must be whole numbers from 0 to 255")
        array = labels
    write_volume(path, array, grid)


def write_volume(path: str | Path, array: np.ndarray, grid: Grid) -> None:
    """Write an array (z, y, x) in LPS order as .nii.gz in the geometry `grid`: complete under its name, or not there at all.

    Raises:
        KitsError: the name does not end in .nii.gz, or the folder cannot be written.
        ValueError: the array has another shape than the grid.
    """
    path = Path(path)
    if not path.name.endswith(".nii.gz"):
        raise KitsError(f"{path}: written files are compressed NIfTI; give a name that ends in .nii.gz")
    image = to_image(array, grid)
    with whole_file(path, ".nii.gz") as temporary:
        sitk.WriteImage(image, temporary, useCompression=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees all of it or what was there before; makes the folder.

    Raises:
        KitsError: the folder cannot be written.
    """
    with whole_file(path, path.suffix) as temporary:
        temporary.write_text(text)


def write_json(path: Path, content: Any) -> None:
    """Write a plain container as `write_text` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")


@contextmanager
def whole_file(path: Path, suffix: str) -> Iterator[Path]:
    """A name to write to that becomes `path` by one rename when the block ends well, and is gone when it does not."""
    # In the same folder, so that the rename is atomic; hidden, so that no pattern for cases finds it.
    temporary = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        raise KitsError(f"{path}: cannot be written ({_last_line(error)}); check the folder and the free space") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# --- image files -----------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> sitk.Image:
    reader = _open(path)
    promise = _promise(reader)  # before the thread starts: a reader that executes cannot be asked for its header
    with ThreadPoolExecutor(1) as pool:  # zlib and ITK both release the GIL: the check costs little beside the reading
        check = pool.submit(_check_file, path, *promise)
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise KitsError(f"{path}: cannot be read ({_last_line(error)}); copy it again") from error
        check.result()
    return image


def _open(path: Path) -> sitk.ImageFileReader:
    """A reader whose header is read and describes one 3D scalar image."""
    if not path.exists():
        raise KitsError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise KitsError(f"{path}: is a folder; give an image file")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise KitsError(_explain_header(path, _last_line(error))) from error
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        kind = f"{reader.GetDimension()}D with {reader.GetNumberOfComponents()} channel(s)"
        raise KitsError(f"{path}: is {kind}, of size {reader.GetSize()}; give one 3D image with one value per voxel")
    if min(reader.GetSize()) < 2 and reader.HasMetaDataKey("0020|000e"):
        raise KitsError(f"{path}: is one slice of a DICOM series; give the folder of the series")
    return reader


def _explain_header(path: Path, reason: str) -> str:
    if "orthonormal" in reason:
        return (
            f"{path}: its axes are not at right angles (sheared affine); "
            "resample it to an upright grid or save it with an orthonormal qform"
        )
    if "Unable to determine ImageIO" in reason:
        return f"{path}: not an image that can be read (or damaged); give a .nii, .nii.gz, .nrrd or .mha file"
    return f"{path}: cannot be read ({reason}); copy or convert it again"


def _check_file(path: Path, offset: int, expected: int, kind: str) -> None:
    """Raise KitsError where a file is damaged, shorter than its NIfTI header promises, or holds NaN (ITK would make it 0 HU)."""
    size = 0
    if not expected and not path.name.endswith(".gz"):
        return
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
            header = stream.read(offset)
            order = "<" if int.from_bytes(header[:4], "little") in (348, 540) else ">"  # size of a NIfTI-1 or -2 header
            size = len(header)
            while part := stream.read(1 << 20):
                size += len(part)
                if kind and not np.isfinite(np.frombuffer(part, order + kind, len(part) // int(kind[1]))).all():
                    raise KitsError(_NOT_FINITE.format(path))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise KitsError(f"{path}: damaged or incomplete ({_last_line(error)}); copy it again") from error
    if size < expected:
        raise KitsError(f"{path}: incomplete, {size} of {expected} bytes; copy it again")


def _promise(reader: sitk.ImageFileReader) -> tuple[int, int, str]:
    """What a NIfTI header says: bytes before the voxels, bytes in all, and "f4" or "f8" for floats; zeros for other formats."""
    if not all(reader.HasMetaDataKey(key) for key in ("vox_offset", "bitpix", "datatype")):
        return 0, 0, ""
    offset = int(float(reader.GetMetaData("vox_offset")))
    voxels = math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    return offset, offset + voxels, {"16": "f4", "64": "f8"}.get(reader.GetMetaData("datatype"), "")


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _read_dicom(folder: Path) -> sitk.Image:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    files = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series}
    if not files:
        raise KitsError(f"{folder}: no DICOM series in this folder; give a folder of DICOM files or an image file")
    if len(files) > 1:
        found = "; ".join(f"{uid} ({len(names)} files, {_description(names[0])})" for uid, names in files.items())
        raise KitsError(f"{folder}: {len(files)} DICOM series, move each to a folder of its own: {found}")
    names = files[series[0]]
    if len(names) == 1:
        return _read_file(Path(names[0]))  # a multi-frame file, or a lone slice, which is refused
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise KitsError(f"{folder}: DICOM series cannot be read ({_last_line(error)}); export it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise KitsError(f"{folder}: DICOM series is not one gray volume; give a CT series")
    _check_slices(folder, image, [reader.GetMetaData(k, "0020|0032") for k in range(len(names))])
    return image


def _check_slices(folder: Path, image: sitk.Image, positions: list[str]) -> None:
    """Raise KitsError unless the slices lie evenly along the normal: ITK would only warn and invent a spacing.

    Args:
        positions: Image Position (Patient), "x\\y\\z" in mm, in the order of the slices.
    """
    steps = np.diff(np.array([[float(value) for value in text.split("\\")] for text in positions]), axis=0)
    normal = np.reshape(image.GetDirection(), (3, 3))[:, 2]
    along = steps @ normal
    # A tenth of a slice: scanners round positions to 0.1 mm or better, and a missing slice is off by a whole one.
    tolerance = 0.1 * float(np.median(np.abs(along)))
    if np.abs(along - np.median(along)).max() > tolerance or tolerance == 0:
        gaps = f"{np.abs(along).min():.2f} to {np.abs(along).max():.2f} mm apart"
        raise KitsError(f"{folder}: slices are missing, doubled or uneven ({gaps}); export the whole series again")
    if np.linalg.norm(steps - along[:, None] * normal, axis=1).max() > tolerance:
        raise KitsError(f"{folder}: slices are shifted against each other (gantry tilt); resample the series first")


def _description(name: str) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return reader.GetMetaData("0008|103e").strip() if reader.HasMetaDataKey("0008|103e") else "no description"


# --- voxel values ----------------------------------------------------------------------------------------------------


def _to_hu(image: sitk.Image, path: Path) -> sitk.Image:
    """The image as int16: CT numbers fit (padding of -3024 too), and half the memory of float32 is spared throughout."""
    if image.GetPixelID() == sitk.sitkInt16:
        return image
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype.kind == "f":
        if not all(np.isfinite(part).all() for part in values):
            raise KitsError(_NOT_FINITE.format(path))
        image = sitk.Round(image)
    return sitk.Clamp(image, sitk.sitkInt16, *HU_RANGE)


def _distinct(values: np.ndarray) -> set[float]:
    """The distinct values of an array, slab by slab."""
    found: set[float] = set()
    for part in values:
        low, high = part.min(), part.max()
        # Most slabs of a label map are empty, and counting small integers is far faster than sorting.
        if low == high:
            found.add(float(low))
        elif values.dtype.kind in "iu" and low >= 0 and high < 1 << 16:
            found.update(map(float, np.flatnonzero(np.bincount(part.ravel()))))
        else:
            found.update(map(float, np.unique(part)))
    return found


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__
