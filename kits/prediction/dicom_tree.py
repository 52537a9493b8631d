"""CT series with their DICOM segmentations or structure sets, as a KiTS tree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.config.schema.dataset import Data, RoiNames
from kits.core.errors import KitsError
from kits.data.converting import write_cases
from kits.data.index import IMAGE_NAME, LABEL_NAME, check_excluded
from kits.data.scans import Scan, find_inputs
from kits.io import write_labels, write_volume
from kits.io.headers import is_dicom, read_instance
from kits.io.tree import files_below, summary
from kits.prediction.dicom_labels import LABEL_MAP, SEGMENTATION, STRUCTURE_SET, read_dicom_seg, read_rt_struct
from kits.volume import Volume
from kits.volume.agreement import lay_into

# Of a file all that is read before it is its case's turn: a structure set's contours are hundreds of MB at worst.
DESCRIBED = ["SOPClassUID", "FrameOfReferenceUID", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]
DESCRIBED += ["StructureSetROISequence", "SegmentSequence"]


@dataclass(frozen=True)
class LabelObject:
    """A segmentation or structure set.

    Attributes:
        kind: its SOP class.
        series: UID of the series that it is of.
        frames: UIDs of the frames of reference that it lies in.
        names: of its ROIs or segments.
    """

    path: Path
    kind: str
    series: str
    frames: set[str]
    names: list[str]


def convert_dicom(data: Data, root: Path, output: Path) -> str:
    """Make `output` a KiTS tree of the series with labels below `root`, named as kits.predict names them.

    Args:
        data: `exclude` names series to leave out, `rois` says what ROIs and segments of these names are.

    Returns:
        What was made and left out.

    Raises:
        KitsError: no series has labels, none has one of the names, or what `write_cases` refuses: a series or its object of
            labels cannot be read, one has two of them, or they are of different grids or frames of reference.
    """
    inputs = find_inputs(root, key="root")
    scans = inputs.scans
    series_of = {name: read_instance(scan.files[0]).text("SeriesInstanceUID") for name, scan in scans.items() if scan.files}
    objects: dict[str, list[LabelObject]] = {}
    for path in files_below(root)[0]:
        if found := _described(path):
            objects.setdefault(found.series, []).append(found)
    left_out = [f"{name}: no segmentation or structure set is of it" for name, uid in series_of.items() if uid not in objects]
    left_out += [f"{found[0].path}: its series is not there" for uid, found in objects.items() if uid not in series_of.values()]
    left_out += summary(item for item in inputs.skipped if not re.search(r"modality (SEG|RTSTRUCT)\b", item.why))
    check_excluded(data.exclude, series_of)
    made = {name: objects[uid] for name, uid in series_of.items() if uid in objects and name not in data.exclude}
    if not made:
        raise KitsError(f"root={root}: no series with labels; {'; '.join(left_out[:2])}; give a folder that holds both")
    given, names = data.rois or RoiNames(), sorted({name for found in made.values() for one in found for name in one.names})
    if absent := given.absent(names):
        there = ", ".join(map(repr, names))
        raise KitsError(f"data.rois: no ROI or segment is called {absent[0]!r}; the names in {len(made)} cases are {there}")

    def write(name: str, folder: Path) -> list[str]:
        found, *others = made[name]
        if others:
            raise KitsError(f"{found.path}: {others[0].path} is of the same series; take one out")
        volume, labels, notes = _read(scans[name], found, given)
        write_volume(folder / IMAGE_NAME, volume.array, volume.grid)
        write_labels(folder / LABEL_NAME, labels, volume.grid)
        return notes

    return write_cases(data, root, output, made, write, left_out)


def _read(scan: Scan, one: LabelObject, given: RoiNames) -> tuple[Volume, Any, list[str]]:
    """Read a series and its labels on its grid."""
    volume = scan.read()
    frame = read_instance(scan.files[0]).text("FrameOfReferenceUID")
    if frame and (others := one.frames - {frame}):
        raise KitsError(
            f"{one.path}: is of another frame of reference ({min(others)}) than its series' {scan.path}; export both again"
        )
    if one.kind == STRUCTURE_SET:
        found, notes = read_rt_struct(one.path, volume.grid, given)
        return volume, found.array, notes
    found, notes = read_dicom_seg(one.path, padded=False, given=given)
    labels = lay_into(volume.grid, found)
    if labels is None:
        raise KitsError(f"{one.path}: its grid is no part of its series' {scan.path}; export both again")
    return volume, labels, notes


def _described(path: Path) -> LabelObject | None:
    """Describe a segmentation or structure set without its voxels and contours; None for any other file."""
    import pydicom

    try:
        kind = read_instance(path).text("SOPClassUID") if is_dicom(path) else ""
        if kind not in (SEGMENTATION, LABEL_MAP, STRUCTURE_SET):
            return None
        content = pydicom.dcmread(path, specific_tags=DESCRIBED)
        rois, segments = content.get("StructureSetROISequence") or (), content.get("SegmentSequence") or ()
        names = [*(str(roi.get("ROIName", "")) for roi in rois), *(str(segment.get("SegmentLabel", "")) for segment in segments)]
        keys = ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
        frames = {str(owner[key].value) for owner in (content, *rois) for key in keys if owner.get(key)}
        try:
            if kind == STRUCTURE_SET:
                study = content.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
                series = str(study.RTReferencedSeriesSequence[0].SeriesInstanceUID)
            else:
                series = str(content.ReferencedSeriesSequence[0].SeriesInstanceUID)
        except (AttributeError, IndexError):
            series = str(path)  # one that names no series is of none
        return LabelObject(path, kind, series, frames, names)
    except Exception:  # pydicom raises whatever the damage of a file leads it to; find_inputs has named it
        return None
