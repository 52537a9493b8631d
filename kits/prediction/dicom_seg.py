"""Label maps as DICOM segmentation objects, in the study of the series that they are of, so that a PACS shows them on it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kits import __version__
from kits.errors import KitsError
from kits.io import whole_file
from kits.io.headers import read_instance
from kits.io.places import Places
from kits.io.reason import last_line

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


def require_highdicom(what: str) -> None:
    """Raise KitsError, which begins with `what`, where the library for these objects is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise KitsError(f"{what} needs highdicom; pip install 'kits[dicom]'") from error


def write_dicom_seg(path: Path, files: Sequence[Path], stored: np.ndarray, classes: Sequence[str]) -> None:
    """Write a segmentation object with one segment a class.

    Args:
        files: the series' files in the order of their slices.
        stored: labels (k, j, i), the slices along the normal of their plane, in the rows and columns of these files.
        classes: names of the labels; the first is the background.

    Raises:
        KitsError: the series lacks what such an object must repeat, or the file cannot be written.
    """
    import highdicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values of the source that break the standard and are only passed on
        try:
            segmentation = highdicom.seg.Segmentation(
                source_images=_sources(files),
                pixel_array=np.ascontiguousarray(stored[_slices_in(files)]),
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_segment(number, name) for number, name in enumerate(classes) if number > 0],
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
        except MemoryError:
            raise
        except Exception as error:  # highdicom raises whatever a header leads it to
            what = f"{files[0].parent}: its headers do not allow a DICOM segmentation ({last_line(error)})"
            raise KitsError(f"{what}; leave out dicom_seg") from error
        with whole_file(path, ".dcm") as temporary:
            segmentation.save_as(temporary)


def _sources(files: Sequence[Path]) -> list[Dataset]:
    """The files' headers as the library takes them; of the first it repeats what tells of the patient and the study."""
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


def _slices_in(files: Sequence[Path]) -> np.ndarray:
    """The number of the slice, counted along the normal, that each frame of these files is."""
    return np.argsort(Places.join([places for file in files if (places := read_instance(file).places)]).order)


def _segment(number: int, name: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    category, kind = (getattr(codes.SCT, code) for code in CODES[name])
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="kits, coarse to fine", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        anatomic_regions=[codes.SCT.Kidney],
    )
