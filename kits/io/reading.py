"""Files to Volumes: NIfTI, NRRD, MetaImage and DICOM series, checked to the last byte."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from kits.core.errors import KitsError, last_line
from kits.io import dicom, nifti, text_headers
from kits.io.headers import is_dicom
from kits.io.itk_names import names_for_itk
from kits.io.limits import refuse_memory, refuse_size
from kits.io.places import ORTHONORMAL
from kits.io.series import only_series
from kits.io.stored import GZIP, GZIP_MAGIC, RAW, Stored, is_gzip, open_unpacked
from kits.io.voxels import Convert, LabelCheck, to_bytes_of_one, to_hu
from kits.volume import Grid, Volume, from_image, from_stored, grid_of

# Formats by ITK's names. It reads others (GIPL, VTK, TIFF), some packed so that damage passes unseen; they do not say which side
# is left, or ITK does not read where they do.
NIFTI, NRRD, META = FORMATS = ("NiftiImageIO", "NrrdImageIO", "MetaImageIO")
# Endings that ITK knows in lower case alone, or not in a mixed one.
_CASED = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
# Beyond these a header says meters or micrometers and means mm, or the other way about; what no CT has is judged later.
_STEPS_MM = (0.005, 500.0)
# Of its types of voxels those that are one number.
_DTYPES = {
    getattr(sitk, f"sitk{name}"): np.dtype(kind)
    for name, kind in {
        **{f"{sign}Int{bits}": f"{kind}{bits // 8}" for sign, kind in (("", "i"), ("U", "u")) for bits in (8, 16, 32, 64)},
        "Float32": "f4",
        "Float64": "f8",
    }.items()
}
# What ITK warns about on stderr is either checked here and raised (uneven slices, no series) or of no consequence (header codes).
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: str | Path) -> Volume:
    """Read a CT scan in HU from an image file or a folder that holds one DICOM series.

    Returns:
        Volume with an int16 array (z, y, x): other types are rounded to whole HU and clipped to [-32768, 32767].

    Raises:
        KitsError: no such file, damaged, not 3D, not one DICOM series, uneven slices, sheared axes, or NaN voxels.
    """
    path = Path(path)
    folder = os.path.isdir(path)
    if not folder:
        _refuse_unreadable(path)
    if folder or is_dicom(path):
        series = only_series(path)
        try:
            volume = read_series(path, series.files)
        except KitsError as error:  # what is missing may be what was left out
            left_out = [note for note in series.notes if " left out: " in note]
            raise KitsError("; ".join([str(error), *left_out])) from error
        return replace(volume, grid=replace(volume.grid, notes=series.notes))
    return _read_file(path, np.dtype(np.int16), partial(to_hu, path=path))


def read_series(folder: Path, files: Sequence[Path]) -> Volume:
    """Read a CT scan in HU from the files of one DICOM series, as `read_volume` returns it.

    Raises:
        KitsError: a file is damaged, the slices are uneven or shifted, or it is a lone slice.
    """
    values, grid = dicom.read_slices(folder, files)
    refuse_geometry(folder, grid.spacing, grid.direction)
    return from_stored(values, grid)


def read_labels(
    path: str | Path, ids: Mapping[int, int] | None = None, *, allowed: Collection[int] = (), seen: set[int] | None = None
) -> Volume:
    """Read a label map as a Volume of uint8 (z, y, x), whatever integer or float type the file has.

    Args:
        ids: the values that a voxel may have, each with the label that it means (`data.ids`).
        allowed: values that mean themselves, where `ids` says nothing.
        seen: takes the ids of the file that occur in it.

    Raises:
        KitsError: as `read_volume`, or a voxel is not one of the `allowed` values (each 0 to 255).
    """
    path = Path(path)
    check = LabelCheck(path, ids or {value: value for value in allowed}, seen)
    labels = _read_file(path, np.dtype(np.uint8), check)
    check.refuse_unknown()
    return labels


def read_probabilities(path: str | Path) -> Volume:
    """Read a map of probabilities as a Volume of uint8 (z, y, x) in which 255 is 1.

    Raises:
        KitsError: as `read_volume`, or a value is not between 0 and 1.
    """
    path = Path(path)
    return _read_file(path, np.dtype(np.uint8), partial(to_bytes_of_one, path=path))


def read_geometry(path: str | Path) -> Grid:
    """Read the geometry of an image file from its header alone.

    Raises:
        KitsError: no such file, not an image, not 3D, sheared axes, or more voxels than a CT has or the file can hold.
    """
    with _opened(Path(path)) as (_, grid, _):
        return grid


def check_file(path: str | Path) -> None:
    """Read an image file to its end, keeping no voxel, to see whether it is whole.

    Raises:
        KitsError: as `read_volume`, but for NaN voxels.
    """
    with _opened(Path(path)) as (_, grid, stored):
        if stored is not None:
            stored.check(grid.size[::-1])


def _read_file(path: Path, dtype: np.dtype, convert: Convert) -> Volume:
    """Read an image file, its voxels passed through `convert`, which makes them `dtype`."""
    with _opened(path) as (reader, grid, stored):
        if stored is not None:
            return from_stored(stored.read(grid.size[::-1], dtype, convert), grid)
        refuse_memory(path, math.prod(grid.size) * _DTYPES[reader.GetPixelID()].itemsize)
        try:
            image = reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise KitsError(f"{path}: damaged or incomplete ({last_line(error)}); copy it again") from error
    values = sitk.GetArrayViewFromImage(image)
    if values.dtype == dtype:  # they stay in the image's own memory
        for part in values:
            convert(part)
        return from_image(image)
    converted = np.empty(values.shape, dtype)
    for target, part in zip(converted, values, strict=True):
        target[...] = convert(part)
    return from_stored(converted, grid_of(image))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[sitk.ImageFileReader, Grid, Stored | None]]:
    """Open a reader of one 3D image's header, its geometry, and its voxels; None if ITK reads them."""
    _refuse_unreadable(path)
    if is_dicom(path):
        raise KitsError(f"{path}: is a DICOM file, of which scans alone are read; give a .nii, .nii.gz, .nrrd or .mha file")
    # A compressed file that is called .nii, too; the other way about ITK does not mind.
    ending = next((one for one in _CASED if path.name.lower().endswith(one)), None)
    ending = ".nii.gz" if ending == ".nii" and is_gzip(path) else ending
    with names_for_itk([path], ending) as (name,):
        kind = sitk.ImageFileReader.GetImageIOFromFileName(name)
        if kind not in FORMATS:
            raise KitsError(_explain_format(path, kind))
        header = nifti.read_header(path) if kind == NIFTI else None
        text = None if kind == NIFTI else text_headers.read_header(path, kind)
        reader = sitk.ImageFileReader()
        reader.SetImageIO(kind)
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            reason = last_line(error)
            what = f"{path}: cannot be read ({reason}); copy or convert it again"
            raise KitsError(sheared(path) if "orthonormal" in reason else what) from error
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1 or reader.GetPixelID() not in _DTYPES:
            what = f"{reader.GetDimension()}D with {reader.GetNumberOfComponents()} channel(s), of size {reader.GetSize()}"
            raise KitsError(f"{path}: is {what}; give one 3D image with one value per voxel")
        refuse_size(path, reader.GetSize())
        notes = text.notes if text else ()
        grid = Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection(), notes)
        if header is not None:  # ITK takes 1 mm for a spacing that is none
            refuse_spacing(path, header[0]["pixdim"][1:].tolist())
        dtype = _DTYPES[reader.GetPixelID()]
        stored = text_headers.find_voxels(text, kind, dtype, grid) if text else nifti.find_voxels(path, header)
        refuse_geometry(path, grid.spacing, grid.direction)
        if kind == NIFTI:
            grid = nifti.believed_grid(path, header, grid)
        if stored is not None:
            stored.refuse_short(grid.size)
        yield reader, grid, stored


def refuse_geometry(path: Path, spacing: Sequence[float], direction: Sequence[float]) -> None:
    """Raise KitsError for a spacing that is none or no CT's, and for sheared axes, which ITK allows."""
    refuse_spacing(path, spacing)
    if not all(_STEPS_MM[0] <= step <= _STEPS_MM[1] for step in spacing):
        steps = ", ".join(f"{step:g}" for step in spacing)
        raise KitsError(f"{path}: its header gives a spacing of ({steps}) mm, which no CT has; mend it, or its unit of length")
    axes = np.reshape(direction, (3, 3))
    if not np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=ORTHONORMAL):  # NaN is not close either
        raise KitsError(sheared(path))


def refuse_spacing(path: Path, spacing: Sequence[float]) -> None:
    """Raise KitsError for a spacing that is none: every volume in mL would be wrong."""
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        steps = ", ".join(f"{step:g}" for step in spacing)
        raise KitsError(f"{path}: its header gives a spacing of ({steps}) mm; mend the header")


def sheared(path: Path) -> str:
    """Return the refusal of axes that no box of voxels has."""
    return f"{path}: its axes are not at right angles (sheared affine); resample it to an upright grid or mend its header"


def _refuse_unreadable(path: Path) -> None:
    try:
        if not path.exists():
            raise KitsError(f"{path}: no such file; check the path")
        if path.is_dir():
            raise KitsError(f"{path}: is a folder; give an image file")
        if not path.is_file():  # a pipe would be waited for without end
            raise KitsError(f"{path}: is no regular file; give an image file")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise KitsError(f"{path}: incomplete, 0 bytes; copy it again")
    except OSError as error:
        raise KitsError(f"{path}: cannot be opened ({error.strerror}); check who may read it") from error


def _explain_format(path: Path, kind: str) -> str:
    packed = is_gzip(path)
    with open_unpacked(path, GZIP if packed else RAW) as stream:
        begins = stream.read(512)
    if begins[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big")):  # the size of its header
        return f"{path}: is NIfTI-2, which ITK does not read; save it as NIfTI-1, .nrrd or .mha"
    if packed and begins.startswith(GZIP_MAGIC):
        return f"{path}: is packed twice, gzip in gzip; unpack it once (mv FILE FILE.gz, gunzip FILE.gz)"
    if begins.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return f"{path}: is a web page and no image (a login, or a link to where it can be downloaded); download the file itself"
    what = f"an image of a format ({kind.removesuffix('ImageIO')}) that is not read" if kind else "not an image that can be read"
    return f"{path}: {what} (or damaged); give a .nii, .nii.gz, .nrrd or .mha file"
