"""DICOM structure sets (RTSTRUCT) as labels on their CT's grid, by their ROIs' names or `data.rois`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from kits.config.schema.dataset import RoiNames
from kits.core.errors import KitsError
from kits.core.labels import CLASSES, CYST, KIDNEY, TUMOR
from kits.data.layouts import NAMES
from kits.volume import Grid, Volume, from_stored

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SIDES, ORGAN = {"left", "right", "l", "r", "lt", "rt", "both"}, {"kidney", "kidneys", "renal"}
# Of a slice: how far a contour may lie off it.
OFF_SLICE = 0.1


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
