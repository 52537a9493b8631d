"""Read the header of a DICOM file: its series, what it holds, and where each of its slices lies."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kits.core.errors import KitsError, printable
from kits.io.places import Places

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SHARED, _FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"),
    *("SeriesNumber", "SeriesDescription", "AcquisitionNumber", "NumberOfFrames", _SHARED, _FRAMES),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation"),
    *("BitsAllocated", "PixelPaddingValue"),
    *("FrameOfReferenceUID", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
]
# In which part of a frame's description (functional group) its attributes stand.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}
# Single frames, many frames in one file, and many frames that were single ones.
CT_IMAGE, *_CT_FRAMES = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"
_DIRECTORY = "1.2.840.10008.1.3.10"
# What anonymisers and converters write where they do not know.
_NO_MODALITY = ("", "OT")
# Of ImageType: the brightest or darkest along rays, and pictures of surfaces (DICOM part 3, C.8.16.1.4, and makers' own words).
_PROJECTIONS = {"MIP", "MINIP", "MIN_IP", "MAX_IP", "VRT", "VOLUME_RENDER", "SURFACE_RENDER"}
# Units of rescaled values that are no HU (DICOM part 3, C.11.1.1.2).
_OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")
# A preamble of 128 bytes, then this (DICOM part 10, section 7.1). Old files begin with their first element, of group 2 or 8.
_MAGIC_AT, _MAGIC = 128, b"DICM"
_FIRST_GROUPS: dict[bytes, Literal["little", "big"]] = {b"\x02\0": "little", b"\x08\0": "little", b"\0\x08": "big"}
# Bytes of a first element's value, where no letters tell its type; other formats' numbers, read as such, are larger.
_MOST_FIRST_BYTES = 1 << 10


@dataclass(frozen=True)
class Instance:
    """One DICOM file by its header.

    Attributes:
        header: what `read_instance` has read of it.
        frames: of each slice in the file where its attributes may stand, nearest first.
        pixels_at: byte of the file where the element of its pixels begins.
    """

    path: Path
    header: Dataset
    frames: tuple[tuple[Dataset, ...], ...]
    pixels_at: int

    def text(self, name: str) -> str:
        """Return an attribute as printable text; empty where there is none or its value is damaged."""
        try:
            value = str(self.header.get(name) or "").strip()
        except Exception:  # pydicom decodes a value when it is asked for, and raises whatever its damage leads to
            return ""
        return printable(value)

    def values(self, name: str) -> list[Any]:
        """Return an attribute of every slice; None where a slice has none."""
        return [_value(frame, name) for frame in self.frames]

    def refuse_short(self) -> None:
        """Refuse a slice with fewer pixels than its header says, which ITK fills up with 0.

        Raises:
            KitsError: it is one; of a compressed slice that is not known.
        """
        syntax = self.header.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated or syntax.is_deflated:
            return
        with self.path.open("rb") as stream:
            stream.seek(self.pixels_at)
            element = stream.read(8 if syntax.is_implicit_VR else 12)  # tag, type, length (DICOM part 5, section 7.1)
            left = self.path.stat().st_size - stream.tell()
        held = min(left, int.from_bytes(element[-4:], "little" if syntax.is_little_endian else "big"))
        expected = int(self.header.Rows) * int(self.header.Columns) * int(self.header.BitsAllocated) // 8
        if held < expected:
            raise KitsError(f"{self.path}: incomplete, {held} of {expected} bytes of pixels; export it again")

    @property
    def is_directory(self) -> bool:
        """True for the table of contents of an export (DICOMDIR)."""
        meta = getattr(self.header, "file_meta", None) or {}
        return str(meta.get("MediaStorageSOPClassUID") or "") == _DIRECTORY

    @property
    def has_ct_class(self) -> bool:
        """True where its class, which decides what ITK reads of a header, is one of CT."""
        return self.text("SOPClassUID") in (CT_IMAGE, *_CT_FRAMES)

    @cached_property
    def places(self) -> Places | None:
        """Positions of its slices; None where one has no place in the patient."""
        positions, cosines = self.values("ImagePositionPatient"), self.values("ImageOrientationPatient")
        if not self.frames or not all(map(_has(3), positions)) or not all(map(_has(6), cosines)):
            return None
        nothing = (math.nan, math.nan)
        spacings = [value if _has(2)(value) else nothing for value in self.values("PixelSpacing")]
        return Places(
            np.tile([int(self.header.Rows), int(self.header.Columns)], (len(self.frames), 1)),
            np.array(spacings, float),
            np.array(cosines, float).reshape(-1, 2, 3),
            np.array(positions, float),
        )

    @cached_property
    def rescale(self) -> np.ndarray:
        """Slope and intercept (n, 2) from stored values to HU; NaN where a slice has none."""
        pairs = zip(self.values("RescaleSlope"), self.values("RescaleIntercept"), strict=True)
        return np.array([[math.nan if value is None else float(value) for value in pair] for pair in pairs])

    @property
    def padding(self) -> float:
        """HU that stand for no value (PixelPaddingValue); NaN where none do."""
        stored = self.header.get("PixelPaddingValue")
        if not isinstance(stored, int):
            return math.nan
        if not self.header.get("PixelRepresentation"):  # some write the value of an unsigned type as a signed one
            stored %= 1 << int(self.header.BitsAllocated)
        slope, intercept = self.rescale[0] if np.isfinite(self.rescale[0]).all() else (1.0, 0.0)
        return float(stored * slope + intercept)

    def unfit(self) -> str | None:
        """Tell why it holds no slices in HU; None where it does.

        Raises:
            Exception: whatever a damaged value leads pydicom to.
        """
        modality, meaning = self.text("Modality"), self.text("PhotometricInterpretation")
        if self.header.get("Rows") is None:
            return f"no images (modality {modality or 'none'})"
        if modality != "CT" and not (modality in _NO_MODALITY and self.has_ct_class):
            return f"modality {modality or 'none'}, not CT"
        if int(self.header.get("SamplesPerPixel") or 1) > 1 or not meaning.startswith("MONOCHROME"):
            return f"in color ({meaning or 'no photometric interpretation'}), not HU"
        if "LOCALIZER" in self.text("ImageType"):
            return "a localizer (scout)"
        if drawn := _PROJECTIONS.intersection(re.findall("[A-Z_]+", self.text("ImageType").upper())):
            return f"a projection or rendering ({', '.join(sorted(drawn))}), not slices in HU"
        if self.places is None:
            one = len(self.frames) == 1
            what = "images without a position (secondary captures or screenshots)" if one else "frames without positions"
            return f"{what}, so no volume"
        if not self.places.are_sized:
            return "slices without a pixel spacing, so no sizes in mm; export it again"
        if not self.places.are_upright or not np.isfinite(self.places.positions).all():
            return "rows and columns not at right angles (a damaged orientation); export it again"
        units = {str(value).upper() for value in self.values("RescaleType") if value}.intersection(_OTHER_UNITS)
        if units or self.header.get("ModalityLUTSequence"):
            return f"values in {', '.join(sorted(units)) or 'a unit of a lookup table'}, not HU"
        if (self.rescale[:, 0] == 0).any() or (np.isnan(self.rescale).any() and not self.has_ct_class):
            return "no rescale to HU"
        if self.header.get("HighBit") is not None and self.header.HighBit + 1 != self.header.get("BitsStored"):
            return f"pixels of {self.header.get('BitsStored')} bits whose highest is {self.header.HighBit}; export it again"
        return None


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM does, with a preamble or without.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(_MAGIC_AT + len(_MAGIC))
    if head[_MAGIC_AT:] == _MAGIC or (order := _FIRST_GROUPS.get(head[:2])) is None:
        return head[_MAGIC_AT:] == _MAGIC
    return head[4:6].isalpha() or int.from_bytes(head[4:8], order) <= _MOST_FIRST_BYTES


def read_instance(path: Path) -> Instance:
    """Read a DICOM file's header; no pixels are read.

    Raises:
        Exception: whatever the damage of a file leads pydicom to.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break the standard and that are not used here
        # By force: files without a preamble are read from their first byte.
        with path.open("rb") as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            begins = stream.tell()
        count, own = int(header.get("NumberOfFrames") or 1), header.get(_FRAMES) or []
        if not own and count <= 1:
            return Instance(path, header, ((header,),), begins)
        shared = tuple(header.get(_SHARED) or [])[:1]
        # With fewer descriptions than frames none has a place.
        described = len(own) == count
        places = tuple((frame, *shared, header) for frame in own) if described else ((),) * count
        return Instance(path, header, places, begins)


def places_of(instances: Iterable[Instance]) -> Places:
    """Return where the slices of these files lie, one file after the other."""
    return Places.join([instance.places for instance in instances if instance.places is not None])


def _value(places: Sequence[Dataset], name: str) -> Any:
    """Return an attribute from the first place that has it, the header or a group of one of many frames."""
    for place in places:
        group = place.get(_GROUPS[name])
        value = group[0].get(name) if group else place.get(name)
        if value is not None:
            return value
    return None


def _has(count: int) -> Callable[[Any], bool]:
    """Return a test for values that are so many numbers."""
    return lambda values: values is not None and not isinstance(values, str) and np.size(values) == count
