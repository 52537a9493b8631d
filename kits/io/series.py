"""The CT series in a tree of DICOM files, each fit for segmentation by its headers; the rest by name, and why it is none."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kits.errors import KitsError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# A file of these ends is an image of another format, and no business of this module.
OTHER_FORMATS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".raw", ".zraw", ".json", ".txt", ".png", ".jpg", ".zip")
_TAGS = [
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing"),
    *("ImageOrientationPatient", "ImagePositionPatient"),
]
# A preamble of 128 bytes, then this (DICOM part 10, section 7.1).
_MAGIC_AT, _MAGIC = 128, b"DICM"
# The table of contents of an export.
_CONTENTS = "DICOMDIR"
# What a plane of slices must agree in; cosines and mm are rounded where scanners write them.
_COSINE_DIGITS, _MM_DIGITS = 3, 4
_ORTHONORMAL = 1e-2


@dataclass(frozen=True)
class Series:
    """One CT series.

    Attributes:
        folder: where all its files lie.
        files: in the order of their slices.
        number, description: as the scanner named it; may be empty.
    """

    uid: str
    folder: Path
    files: tuple[Path, ...]
    number: str
    description: str

    def __str__(self) -> str:
        return f"{self.uid} ({len(self.files)} files, {self.description or 'no description'})"


@dataclass(frozen=True)
class Skipped:
    """What was found and not taken, and why."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass
class _Group:
    """The files of one series in one folder, with their headers."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    headers: list[Dataset] = field(default_factory=list)


def only_series(folder: Path) -> Series:
    """The one CT series in a folder.

    Raises:
        KitsError: there is none, or more than one.
    """
    found, skipped = find_series(folder, min_slices=2)
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(map(str, found))
        raise KitsError(f"{folder}: {len(found)} DICOM series, move each to a folder of its own: {listed}")
    reasons = "; ".join(map(str, skipped[:3])) + ("; ..." if len(skipped) > 3 else "")
    found_instead = f" ({reasons})" if skipped else ""
    raise KitsError(
        f"{folder}: no DICOM series of CT in this folder{found_instead}; give a folder of DICOM files or an image file"
    )


def find_series(folder: Path, *, min_slices: int) -> tuple[list[Series], list[Skipped]]:
    """Every CT series below a folder, and what else is there.

    A series ends at its folder: a copy of it elsewhere is another one. What is no DICOM at all is left out without a word.

    Args:
        min_slices: series of fewer are skipped.

    Raises:
        KitsError: a folder cannot be listed.
    """
    groups: dict[tuple[Path, str], _Group] = {}
    skipped = []
    for path in _dicom_files(folder):
        try:
            header = _header(path)
            key = path.parent, str(header.get("SeriesInstanceUID", ""))
        except Exception as error:  # pydicom raises whatever the damage leads to
            skipped.append(Skipped(path, f"damaged DICOM file ({type(error).__name__}); export it again"))
            continue
        if not key[1]:
            skipped += (
                [] if path.name == _CONTENTS else [Skipped(path, "damaged DICOM file (it names no series); export it again")]
            )
            continue
        group = groups.setdefault(key, _Group(path.parent))
        group.files.append(path)
        group.headers.append(header)
    found = []
    for (_, uid), group in sorted(groups.items(), key=lambda item: (str(item[0][0]), _number(item[1].headers[0]), item[0][1])):
        series, left_out = _judge(uid, group, min_slices)
        found += [series] if series else []
        skipped += left_out
    return found, skipped


def _header(path: Path) -> Dataset:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break the standard and that are not used here
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        for name in _TAGS:
            header.get(name)  # decoded only now, and what is damaged raises
    return header


def _judge(uid: str, group: _Group, min_slices: int) -> tuple[Series | None, list[Skipped]]:
    """A group of files as a series of slices, without its scouts; or None, and why."""
    first = group.headers[0]
    description, number = str(first.get("SeriesDescription") or "").strip(), str(first.get("SeriesNumber") or "")
    label = f"series {number or uid} ({description or 'no description'}, {len(group.files)} file(s))"

    def skip(why: str) -> Skipped:
        return Skipped(group.folder, f"{label}: {why}")

    if why := _unfit(first):
        return None, [skip(why)]
    pairs = list(zip(group.files, group.headers, strict=True))
    slices = [(file, header) for file, header in pairs if not _is_localizer(header)]
    if not slices:
        return None, [skip("a localizer (scout)")]
    left_out = [skip(f"{len(pairs) - len(slices)} localizer(s) of it")] if len(slices) < len(pairs) else []
    if len(slices) == 1 and int(slices[0][1].get("NumberOfFrames") or 1) > 1:
        return Series(uid, group.folder, (slices[0][0],), number, description), left_out
    planes = Counter(_plane(header) for _, header in slices)
    if None in planes:
        return None, [skip("images without a position (secondary captures or screenshots), so no volume"), *left_out]
    if not all(_is_spacing(plane[2]) for plane in planes if plane):
        return None, [skip("slices without a pixel spacing, so no sizes in mm; export it again"), *left_out]
    if not all(_is_upright(plane[3]) for plane in planes if plane):
        return None, [skip("rows and columns not at right angles (a damaged orientation); export it again"), *left_out]
    if len(slices) < min_slices:
        return None, [skip("only one slice" if len(slices) == 1 else f"only {len(slices)} slices"), *left_out]
    if len(planes) > 1:
        kinds = ", ".join(f"{count} of {plane[0]} x {plane[1]}" for plane, count in planes.most_common() if plane)
        return None, [skip(f"mixed: images of {len(planes)} planes or sizes ({kinds}); export each as its own series"), *left_out]
    return Series(uid, group.folder, _in_order(slices), number, description), left_out


def _unfit(header: Dataset) -> str | None:
    """What a series is instead of gray CT images."""
    modality = str(header.get("Modality") or "none")
    if header.get("Rows") is None:
        return f"no images (modality {modality})"
    if modality != "CT":
        return f"modality {modality}, not CT"
    if int(header.get("SamplesPerPixel") or 1) > 1 or not str(header.get("PhotometricInterpretation")).startswith("MONOCHROME"):
        return f"in color ({header.get('PhotometricInterpretation')}), not HU"
    return None


def _is_localizer(header: Dataset) -> bool:
    kinds = header.get("ImageType") or ()
    return "LOCALIZER" in ([kinds] if isinstance(kinds, str) else list(kinds))


def _plane(header: Dataset) -> tuple[Any, ...] | None:
    """Size, spacing and direction of a slice; None where it has no place in the patient."""
    orientation, position = header.get("ImageOrientationPatient"), header.get("ImagePositionPatient")
    if orientation is None or position is None or len(orientation) != 6 or len(position) != 3:
        return None
    cosines = tuple(round(float(value), _COSINE_DIGITS) + 0.0 for value in orientation)
    spacing = tuple(round(float(value), _MM_DIGITS) for value in header.get("PixelSpacing") or ())
    return int(header.Rows), int(header.Columns), spacing, cosines


def _is_spacing(steps: tuple[float, ...]) -> bool:
    return len(steps) == 2 and all(step > 0 for step in steps)  # ITK would take 1 mm for any other


def _is_upright(cosines: tuple[float, ...]) -> bool:
    """Whether the directions of rows and columns have unit length and a right angle, which ITK would silently give them."""
    axes = np.reshape(cosines, (2, 3))
    return np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=_ORTHONORMAL)


def _in_order(slices: Sequence[tuple[Path, Dataset]]) -> tuple[Path, ...]:
    """The files along the normal of their plane."""
    rows, columns = np.reshape([float(value) for value in slices[0][1].ImageOrientationPatient], (2, 3))
    normal = np.cross(rows, columns)
    along = [float(np.dot(normal, [float(value) for value in header.ImagePositionPatient])) for _, header in slices]
    return tuple(slices[index][0] for index in np.argsort(along, kind="stable"))


def _number(header: Dataset) -> int:
    return int(header.get("SeriesNumber") or 0)


def _dicom_files(folder: Path) -> list[Path]:
    """The files below a folder that begin as DICOM does, in the order of their paths."""

    def refuse(error: OSError) -> None:
        raise KitsError(f"{error.filename}: cannot be listed ({error.strerror}); check who may read it") from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and not name.lower().endswith(OTHER_FORMATS) and _begins_as_dicom(path):
                found.append(path)
    return found


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError as error:
        raise KitsError(f"{path}: cannot be opened ({error.strerror}); check who may read it") from error
