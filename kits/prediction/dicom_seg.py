"""Label maps as DICOM segmentation objects, in the study of the series that they are of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kits import __version__
from kits.core.errors import KitsError, last_line
from kits.io import whole_file
from kits.io.headers import places_of, read_instance

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Category and type of what is segmented, from the codes of DICOM's CID 7150 and 7151 (part 16).
CODES = {
    "kidney": ("AnatomicalStructure", "Kidney"),
    "tumor": ("MorphologicallyAbnormalStructure", "Neoplasm"),
    "cyst": ("MorphologicallyAbnormalStructure", "Cyst"),
}
# What the object repeats of its source and may leave empty (type 2), which anonymisers delete.
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"),
    *("StudyID", "StudyDate", "StudyTime"),
)
# UTF-8, which every text of a source can be written in, whatever its own character set.
CHARACTERS = "ISO_IR 192"
# DICOM asks who made it; a series number far from a scanner's own.
MANUFACTURER, MODEL, SERIAL, SERIES_NUMBER = "kits", "kits", "0", 9000
ALGORITHM = "kits, coarse to fine"


def require_highdicom(what: str) -> None:
    """Raise KitsError, which begins with `what`, where the library for these objects is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise KitsError(f"{what} needs highdicom; pip install 'kits[dicom]'") from error


@dataclass(frozen=True)
class Segment:
    """The meaning of one number of an array.

    Attributes:
        label: for a reader. kind: `kidney`, `tumor` or `cyst`.
        uid: under which others, such as a report, speak of it.
    """

    label: str
    kind: str
    uid: str | None = None


def write_dicom_seg(path: Path, files: Sequence[Path], stored: np.ndarray, classes: Sequence[str]) -> None:
    """Write a segmentation object with one segment a class.

    Args:
        files: the series' files in the order of their slices.
        stored: labels (k, j, i), the slices along the normal of their plane, in the rows and columns of these files.
        classes: names of the labels; the first is the background.

    Raises:
        KitsError: the series lacks what such an object must repeat, or the file cannot be written.
    """
    with refusing(files, "a DICOM segmentation", "dicom_seg"):
        segmentation = segmentation_of(sources(files), files, stored, [Segment(name, name) for name in classes[1:]])
    save(path, segmentation)


def segmentation_of(headers: list[Dataset], files: Sequence[Path], stored: np.ndarray, segments: Sequence[Segment]) -> Any:
    """Make a segmentation object whose segments are the numbers of `stored`, from 1."""
    import highdicom

    order = places_of(map(read_instance, files)).order
    return highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=np.ascontiguousarray(stored[np.argsort(order)]),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(number, segment) for number, segment in enumerate(segments, start=1)],
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number=SERIAL,
        series_description="Kidneys and kidney tumors",
    )


@contextmanager
def refusing(files: Sequence[Path], what: str, key: str) -> Iterator[None]:
    """Raise KitsError for whatever a header leads highdicom to while it makes an object of these files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values of the source that break the standard and are only passed on
        try:
            yield
        except (MemoryError, KitsError):
            raise
        except Exception as error:
            refused = f"{files[0].parent}: its headers do not allow {what} ({last_line(error)})"
            raise KitsError(f"{refused}; leave out {key}") from error


def save(path: Path, made: Any) -> None:
    """Write an object: complete under its name, or not there at all."""
    with warnings.catch_warnings(), whole_file(path, ".dcm") as temporary:
        warnings.simplefilter("ignore")
        made.save_as(temporary)


def sources(files: Sequence[Path]) -> list[Dataset]:
    """Read the headers as highdicom takes them; of the first it repeats what tells of patient and study."""
    import pydicom
    from highdicom.enum import PatientSexValues
    from pydicom.valuerep import DA, TM

    headers: list[Dataset] = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files]
    first = headers[0]
    for header in headers[1:]:  # cosines that differ in the seventh digit are one direction
        for name in ("ImageOrientationPatient", "PixelSpacing"):
            if name in header:
                header[name] = first[name]
    first.decode()
    first.SpecificCharacterSet = CHARACTERS
    checks = {"PatientSex": PatientSexValues, "PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
    for name in MAY_BE_EMPTY:
        try:
            checks.get(name, str)(first[name].value)
        except (KeyError, ValueError):
            setattr(first, name, "")
    first.Modality = "CT"
    return headers


def _described(number: int, segment: Segment) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    category, kind = (getattr(codes.SCT, code) for code in CODES[segment.kind])
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=ALGORITHM, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        tracking_uid=segment.uid,
        tracking_id=segment.label if segment.uid else None,
        anatomic_regions=[codes.SCT.Kidney],
    )
