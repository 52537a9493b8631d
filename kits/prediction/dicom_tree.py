"""CT series with their DICOM segmentations or structure sets, as a KiTS tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.data.converting import write_cases
from kits.data.index import IMAGE_NAME, LABEL_NAME, check_excluded
from kits.data.scans import Scan, find_inputs
from kits.io import write_labels, write_volume
from kits.io.headers import is_dicom, read_instance
from kits.io.tree import files_below, summary
from kits.prediction.rt_struct import STRUCTURE_SET, read_rt_struct
from kits.prediction.seg_reading import LABEL_MAP, SEGMENTATION, read_dicom_seg
from kits.volume import Volume
from kits.volume.agreement import lay_into


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
    objects: dict[str, list[Path]] = {}
    for path in files_below(root)[0]:
        if uid := _series_it_is_of(path):
            objects.setdefault(uid, []).append(path)
    left_out = [f"{name}: no segmentation or structure set is of it" for name, uid in series_of.items() if uid not in objects]
    left_out += [f"{paths[0]}: its series is not there" for uid, paths in objects.items() if uid not in series_of.values()]
    left_out += summary(item for item in inputs.skipped if not re.search(r"modality (SEG|RTSTRUCT)\b", item.why))
    check_excluded(data.exclude, series_of)
    made = {name: objects[uid] for name, uid in series_of.items() if uid in objects and name not in data.exclude}
    if not made:
        raise KitsError(f"root={root}: no series with labels; {'; '.join(left_out[:2])}; give a folder that holds both")
    given = data.rois.labels if data.rois else {}
    known = {name.strip().casefold(): name for paths in made.values() for path in paths for name in _names(path)} if given else {}
    if absent := sorted(set(given) - set(known)):
        there = ", ".join(map(repr, sorted(known.values())))
        raise KitsError(f"data.rois: no ROI or segment is called {absent[0]!r}; the names in {len(made)} cases are {there}")

    def write(name: str, folder: Path) -> list[str]:
        path, *others = made[name]
        if others:
            raise KitsError(f"{path}: {others[0]} is of the same series; take one out")
        volume, labels, notes = _read(scans[name], path, given)
        write_volume(folder / IMAGE_NAME, volume.array, volume.grid)
        write_labels(folder / LABEL_NAME, labels, volume.grid)
        return notes

    return write_cases(data, root, output, made, write, left_out)


def _read(scan: Scan, path: Path, given: Mapping[str, int]) -> tuple[Volume, Any, list[str]]:
    """Read a series and its labels on its grid."""
    volume = scan.read()
    frame = read_instance(scan.files[0]).text("FrameOfReferenceUID")
    if frame and (others := _frames(path) - {frame}):
        raise KitsError(
            f"{path}: is of another frame of reference ({min(others)}) than its series' {scan.path}; export both again"
        )
    if read_instance(path).text("SOPClassUID") == STRUCTURE_SET:
        found, notes = read_rt_struct(path, volume.grid, given)
        return volume, found.array, notes
    found, notes = read_dicom_seg(path, padded=False, given=given)
    labels = lay_into(volume.grid, found)
    if labels is None:
        raise KitsError(f"{path}: its grid is no part of its series' {scan.path}; export both again")
    return volume, labels, notes


def _names(path: Path) -> list[str]:
    """List the ROIs of a structure set or the segments of a segmentation by their names."""
    import pydicom

    content = pydicom.dcmread(path, stop_before_pixels=True)
    rois, segments = content.get("StructureSetROISequence") or (), content.get("SegmentSequence") or ()
    return [*(str(roi.get("ROIName", "")) for roi in rois), *(str(segment.get("SegmentLabel", "")) for segment in segments)]


def _frames(path: Path) -> set[str]:
    """Collect the frames of reference that a structure set or segmentation lies in, by UID."""
    import pydicom

    content = pydicom.dcmread(path, stop_before_pixels=True)
    owners = [content, *(content.get("StructureSetROISequence") or ())]
    keys = ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
    return {str(owner[key].value) for owner in owners for key in keys if owner.get(key)}


def _series_it_is_of(path: Path) -> str:
    """Return the UID of the series that a segmentation or structure set is of; empty for any other file."""
    import pydicom

    try:
        kind = read_instance(path).text("SOPClassUID") if is_dicom(path) else ""
        if kind in (SEGMENTATION, LABEL_MAP):
            found = pydicom.dcmread(path, stop_before_pixels=True).ReferencedSeriesSequence
        elif kind == STRUCTURE_SET:
            frame = pydicom.dcmread(path).ReferencedFrameOfReferenceSequence[0]
            found = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
        else:
            return ""
        return str(found[0].SeriesInstanceUID)
    except (AttributeError, IndexError, OSError):  # find_inputs has named the damaged; one that names no series is of none
        return str(path)
    except Exception:  # pydicom raises whatever the damage of a file leads it to
        return ""
