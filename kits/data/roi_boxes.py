"""`boxes.json`: the ROIs that coarse networks found in cases not trained on (out-of-fold).

A box stands in the file as [[z, y, x], [z, y, x]], low and high corner in mm from the outer corner of the first voxel of the
array in LPS order, along (z, y, x): voxel i of an axis spans i to i + 1 times the spacing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kits.core.errors import KitsError
from kits.core.plain_files import misfit, read_json
from kits.data.cached_case import CaseRecord
from kits.io import write_json
from kits.volume import Spacing
from kits.volume.rois import Box

# Raised when the file changes its meaning.
FORMAT = 1
FRAME = "low and high corner in mm from the outer corner of the first voxel of the LPS-ordered array, along (z, y, x)"
# A tenth of a micrometer: far below any voxel, and the file stays readable.
DECIMALS = 4
# Spacings of one scan that went through two readers may differ in the last digits of their floats.
SAME_SPACING_MM = 1e-3
POINT = (float, float, float)
CASE = {"checkpoint": str, "shape": (int, int, int), "spacing": POINT, "boxes_mm": [(POINT, POINT)]}
CONTENT = {"kits_boxes": int, "checkpoints": {str: {"trained_on": [str]}}, "cases": {str: dict}}
MAKE_AGAIN = "run kits.boxes again"


def choose_checkpoints(ids: Iterable[str], trained_on: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Choose for each case the first checkpoint that was not trained on it.

    Args:
        trained_on: the training cases of each checkpoint, by its path.

    Raises:
        KitsError: every checkpoint was trained on some case; the text names these cases.
    """
    seen = {path: set(cases) for path, cases in trained_on.items()}
    chosen = {case: next((path for path, cases in seen.items() if case not in cases), None) for case in ids}
    leaky = sorted(case for case, path in chosen.items() if path is None)
    if leaky:
        raise KitsError(
            f"coarse: every checkpoint given was trained on {', '.join(leaky)};"
            " give the checkpoint of the fold that holds them too, or name other cases with cases=[...]"
        )
    return {case: path for case, path in chosen.items() if path is not None}


def to_mm(box: Box, spacing: Spacing) -> list[list[float]]:
    """Bring a box of voxels to the file's frame, in mm."""
    return [[round(float(edge * step), DECIMALS) for edge, step in zip(corner, spacing, strict=True)] for corner in box.to_list()]


def to_voxels(corners: Sequence[Sequence[float]], spacing: Spacing) -> Box:
    """Bring a box back to voxels, the reverse of `to_mm`."""
    return Box.from_list(np.rint(np.asarray(corners, dtype=np.float64) / np.asarray(spacing)).tolist())


def write_boxes(path: Path, checkpoints: Mapping[str, Any], cases: Mapping[str, Any]) -> None:
    """Write `boxes.json`, whole or not at all.

    Args:
        checkpoints: by path, `sha256` of the file and `trained_on`, the ids of its training cases.
        cases: by id, `boxes_mm`, `shape` and `spacing` (z, y, x) of the scan, `checkpoint` (a path), and what else is known.

    Raises:
        KitsError: the folder cannot be written.
    """
    write_json(path, {"kits_boxes": FORMAT, "frame": FRAME, "checkpoints": checkpoints, "cases": cases})


def with_boxes(records: Mapping[str, CaseRecord], path: Path) -> dict[str, CaseRecord]:
    """Put the boxes (voxels) of a `boxes.json`, which may hold more cases, into a cache's records.

    Raises:
        KitsError: the file cannot be read or belongs to another data set, lacks a case, or a case's boxes come from a model that
            was trained on it.
    """
    content = read_boxes(path)
    checkpoints, found = content["checkpoints"], content["cases"]
    # A parent of theirs may have learned from another data set.
    own = (set(used["trained_on"]) - set(used.get("by_parent", [])) for used in checkpoints.values())
    foreign = sorted(set().union(*own) - set(records))
    if foreign:
        raise KitsError(
            f"data.boxes={path}: its checkpoints were trained on {foreign[0]}, which this cache does not hold: a file of another"
            f" data set or an older case list; train the coarse folds on this cache and {MAKE_AGAIN}"
        )
    missing = sorted(set(records) - set(found))
    if missing:
        raise KitsError(f"data.boxes={path}: no boxes of {', '.join(missing)}; {MAKE_AGAIN} over all cases")
    return {
        case: {**record, "boxes": read_case_boxes(case, record, found[case], checkpoints, path)}
        for case, record in records.items()
    }


def read_boxes(path: Path) -> dict[str, Any]:
    """Read a `boxes.json`."""
    writer = "kits.boxes writes it"
    content: dict[str, Any] = read_json(path, CONTENT, "boxes", writer)
    if content["kits_boxes"] != FORMAT or not content["cases"]:
        what = f"its format is {content['kits_boxes']}, this version reads {FORMAT}" if content["cases"] else "it names no cases"
        raise KitsError(f"data.boxes={path}: cannot be read as boxes ({what}); {writer}")
    return content


def read_case_boxes(
    case: str, record: CaseRecord, found: Mapping[str, Any], checkpoints: Mapping[str, Any], path: Path
) -> list[list[list[int]]]:
    """Return the boxes of one case in voxels, as its cache record keeps them.

    Raises:
        KitsError: they leak, are of another scan, or are damaged.
    """
    wrong = misfit(found, CASE, case)
    if wrong or found["checkpoint"] not in checkpoints or min(found["spacing"]) <= 0:
        raise KitsError(
            f"data.boxes={path}: the entry of {case} is damaged ({wrong or 'its checkpoint or spacing'}); {MAKE_AGAIN}"
        )
    checkpoint = found["checkpoint"]
    if case in checkpoints[checkpoint]["trained_on"]:
        raise KitsError(f"data.boxes={path}: the boxes of {case} come from {checkpoint}, which was trained on it; {MAKE_AGAIN}")
    same_spacing = np.allclose(found["spacing"], record["spacing"], rtol=0, atol=SAME_SPACING_MM)
    if found["shape"] != record["shape"] or not same_spacing:
        raise KitsError(
            f"data.boxes={path}: {case} has {found['shape']} voxels of {found['spacing']} mm there, here {record['shape']} of"
            f" {record['spacing']}: a file of another data set; {MAKE_AGAIN} on this one"
        )
    boxes = [to_voxels(corners, found["spacing"]) for corners in found["boxes_mm"]]
    inside = all(
        0 <= low < high <= size for box in boxes for low, high, size in zip(box.start, box.stop, record["shape"], strict=True)
    )
    if not boxes or not inside:
        raise KitsError(f"data.boxes={path}: {case} has no box, or one that leaves its scan; {MAKE_AGAIN}")
    return [box.to_list() for box in boxes]
