"""DICOM segmentation objects as label maps, whoever wrote them, by the codes of their segments."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kits.config.schema.dataset import RoiNames
from kits.core.errors import KitsError
from kits.core.labels import CLASSES, CYST, KIDNEY, TUMOR
from kits.io.headers import is_dicom, read_instance
from kits.io.reason import last_line
from kits.prediction.dicom_seg import CODES, require_highdicom
from kits.volume import Grid, Volume, from_stored

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
# What others call a kidney and a tumor, codes of SNOMED CT: left and right kidney, mass, malignant and renal cell neoplasms.
OTHER_CODES = {
    **dict.fromkeys(("18639004", "9846003"), KIDNEY),
    **dict.fromkeys(("4147007", "86049000", "363346000", "702391001"), TUMOR),
}


def is_dicom_seg(path: Path) -> bool:
    """Tell whether a file is a DICOM segmentation object by its header."""
    try:
        return path.is_file() and is_dicom(path) and read_instance(path).text("SOPClassUID") in (SEGMENTATION, LABEL_MAP)
    except Exception:  # pydicom raises whatever the damage of a file leads it to
        return False


def read_dicom_seg(path: Path, *, padded: bool = True, given: RoiNames | None = None) -> tuple[Volume, list[str]]:
    """Read a segmentation object as a label map (z, y, x) in LPS order, with notes for a reader.

    It holds the slices that have labels, as a rule; where it was made of more, an empty one is put at both ends if `padded`.

    Args:
        given: what segments of these names are, which goes before what their codes say.

    Raises:
        KitsError: highdicom is not installed, the file is damaged or no volume, or no segment is a kidney or a tumor.
    """
    require_highdicom(f"{path}: is a DICOM segmentation, which")
    import highdicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break the standard and are not used here
        try:
            segmentation = highdicom.seg.segread(path)
            described = {number: segmentation.get_segment_description(number) for number in segmentation.segment_numbers}
            known = {n: given and given.label_of(one.segment_label) for n, one in described.items()}
            labels_of = {n: _label_of(one) if known[n] is None else known[n] for n, one in described.items()}
            numbers = {label: [n for n, one in labels_of.items() if one == label] for label in (KIDNEY, CYST, TUMOR)}
            if not any(numbers.values()):
                named = ", ".join(repr(segment.segment_label) for segment in described.values())
                raise KitsError(f"{path}: no segment is a kidney, a tumor or a cyst by its code ({named}); give another file")
            stored: np.ndarray | None = None
            affine: np.ndarray | None = None
            for label, wanted in numbers.items():  # the later stays where two meet
                if wanted:
                    part = segmentation.get_volume(segment_numbers=wanted)
                    mask = (part.array > 0.5).any(axis=-1)
                    stored = np.zeros(mask.shape, np.uint8) if stored is None else stored
                    stored[mask], affine = label, part.affine
        except (KitsError, MemoryError):
            raise
        except Exception as error:  # highdicom raises whatever a header leads it to
            raise KitsError(f"{path}: cannot be read as a volume ({last_line(error)}); export it again") from error
    assert stored is not None
    assert affine is not None
    notes = [
        f"segment {described[n].segment_label!r} is left out: its code is no kidney, tumor or cyst"
        for n, label in labels_of.items()
        if label == 0
    ]
    series = segmentation.get("ReferencedSeriesSequence")  # as many images as the series has, if it says so
    if padded and not (series and len(series[0].get("ReferencedInstanceSequence") or ()) == len(stored)):
        stored = np.pad(stored, ((1, 1), (0, 0), (0, 0)))
        affine = affine @ np.array([[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        notes.append("cut or not at the first and last slice: the segmentation holds slices with labels alone; give its CT")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    spacing, cosines = steps[::-1], (affine[:3, :3] / steps)[:, ::-1]  # SimpleITK's order: column, row, slice
    place = tuple(float(value) for value in affine[:3, 3])
    grid = Grid(
        (stored.shape[2], stored.shape[1], stored.shape[0]),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (place[0], place[1], place[2]),
        tuple(float(value) for value in cosines.ravel()),
    )
    return from_stored(stored, grid), notes


def _label_of(segment: Any) -> int:
    """Find the label that a segment's type stands for; 0 for none of ours, as a tumor of another organ."""
    from pydicom.sr.codedict import codes

    kind = segment.segmented_property_type
    own = next((CLASSES.index(name) for name, (_, code) in CODES.items() if kind == getattr(codes.SCT, code)), 0)
    label = own or OTHER_CODES.get(kind.value, 0)
    sites = segment.anatomic_regions or []
    kidneys = [codes.SCT.Kidney.value, *(code for code, one in OTHER_CODES.items() if one == KIDNEY)]
    return label if label == KIDNEY or not sites or any(site.value in kidneys for site in sites) else 0
