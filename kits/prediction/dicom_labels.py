"""DICOM segmentations and structure sets (RTSTRUCT) as label maps, whoever wrote them.

By the codes of their segments, by the names of their ROIs, or by `data.rois`.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kits.config.schema.dataset import RoiNames
from kits.core.errors import KitsError, last_line
from kits.core.labels import CLASSES, CYST, KIDNEY, TUMOR
from kits.data.layouts import NAMES
from kits.io.headers import is_dicom, read_instance
from kits.prediction.dicom_seg import CODES, require_highdicom
from kits.volume import Grid, Volume, from_stored

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
# What others call a kidney and a tumor, codes of SNOMED CT: left and right kidney, mass, malignant and renal cell neoplasms.
OTHER_CODES = {
    **dict.fromkeys(("18639004", "9846003"), KIDNEY),
    **dict.fromkeys(("4147007", "86049000", "363346000", "702391001"), TUMOR),
}
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SIDES, ORGAN = {"left", "right", "l", "r", "lt", "rt", "both"}, {"kidney", "kidneys", "renal"}
# Of a slice: how far a contour may lie off it.
OFF_SLICE = 0.1


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
    cosines = (affine[:3, :3] / steps)[:, ::-1]  # SimpleITK's order: column, row, slice
    (slices, rows, columns), (dk, dj, di), (x, y, z) = stored.shape, steps.tolist(), affine[:3, 3].tolist()
    return from_stored(stored, Grid((columns, rows, slices), (di, dj, dk), (x, y, z), tuple(cosines.ravel().tolist()))), notes


def _label_of(segment: Any) -> int:
    """Find the label that a segment's type stands for; 0 for none of ours, as a tumor of another organ."""
    from pydicom.sr.codedict import codes

    kind = segment.segmented_property_type
    own = next((CLASSES.index(name) for name, (_, code) in CODES.items() if kind == getattr(codes.SCT, code)), 0)
    label = own or OTHER_CODES.get(kind.value, 0)
    sites = segment.anatomic_regions or []
    kidneys = [codes.SCT.Kidney.value, *(code for code, one in OTHER_CODES.items() if one == KIDNEY)]
    return label if label == KIDNEY or not sites or any(site.value in kidneys for site in sites) else 0


def class_of(name: str) -> int:
    """Read the label off the name of an ROI, as `Kidney_L` or `renal tumor`; 0 where it is none of ours."""
    words = [word for word in re.findall("[a-z]+", name.casefold()) if word not in SIDES]
    kind = [word for word in words if word not in ORGAN] or words[:1]
    return CLASSES.index(found) if len(kind) == 1 and (found := NAMES.get(kind[0])) in CLASSES else 0


def read_rt_struct(path: Path, grid: Grid, given: RoiNames) -> tuple[Volume, list[str]]:
    """Fill the contours of a structure set on the grid of its CT, and tell what is left out.

    Args:
        given: what ROIs of these names are, which goes before what the names say.

    A voxel is in an ROI where its centre is inside an odd number of the contours in its slice: one in another is a hole.

    Raises:
        KitsError: it cannot be read, no ROI is a kidney by its name, none has a voxel, or a contour lies in no slice of the CT.
    """
    import pydicom

    try:
        structures = pydicom.dcmread(path)
        names = {int(roi.ROINumber): str(roi.ROIName) for roi in structures.StructureSetROISequence}
        contours = {int(roi.ReferencedROINumber): roi.get("ContourSequence") or [] for roi in structures.ROIContourSequence}
    except Exception as error:  # pydicom raises whatever the damage of a file leads it to
        raise KitsError(f"{path}: cannot be read as a structure set ({type(error).__name__}); export it again") from error
    said = {number: given.label_of(name) for number, name in names.items()}
    labels_of = {number: class_of(names[number]) if label is None else label for number, label in said.items()}
    if KIDNEY not in labels_of.values():
        has = ", ".join(map(repr, names.values()))
        raise KitsError(f"{path}: no ROI is a kidney by its name ({has}); say which is with data.rois={{kidney:[NAME]}}")
    stored, filled = np.zeros(grid.size[::-1], np.uint8), {}
    for label in (KIDNEY, CYST, TUMOR):  # the later stays where two meet
        for number in (number for number, one in labels_of.items() if one == label):
            filled[number] = _filled(contours.get(number, []), grid, f"{path}: {names[number]!r}")
            stored[filled[number]] = label
    if KIDNEY not in stored:
        raise KitsError(f"{path}: no contour of a kidney is closed and holds a voxel; export it again, or take it out")
    notes = [
        f"ROI {names[number]!r} is none of ours by its name; data.rois can say what it is"
        for number, label in labels_of.items()
        if not label
    ]
    notes += [
        f"ROI {names[number]!r} has no closed contour that holds a voxel" for number, mask in filled.items() if not mask.any()
    ]
    return from_stored(stored, grid), notes


def _filled(contours: list[Any], grid: Grid, whose: str) -> np.ndarray:
    """Fill the closed contours of an ROI, bool (k, j, i)."""
    from skimage.draw import polygon

    mask = np.zeros(grid.size[::-1], bool)
    to_index = np.linalg.inv(np.reshape(grid.direction, (3, 3)) * np.array(grid.spacing))
    for contour in contours:
        if contour.get("ContourGeometricType") != "CLOSED_PLANAR":
            continue  # a point or a line has no inside
        points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
        columns, rows, slices = to_index @ (points - grid.origin).T
        place = int(np.rint(slices[0]))
        if abs(slices - place).max() > OFF_SLICE or not 0 <= place < len(mask):
            raise KitsError(f"{whose} has a contour in no slice of its CT; export both of one series")
        mask[place][polygon(rows, columns, mask.shape[1:])] ^= True
    return mask
