"""The record of a cached case; whether the case is there whole, as after a crash it may not be."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from kits.core.plain_files import read_object

if TYPE_CHECKING:
    from kits.data.classes import Labelled

VOXEL = (int, int, int)
# Of a case's record what training reads, in index.json too.
RECORD = {
    "shape": VOXEL,
    "spacing": (float, float, float),
    "boxes": [(VOXEL, VOXEL)],
    "kidney_slices": (int, int),
}
WHOLE = {**RECORD, "made_with": str, "files": {str: int}, "findings": [{str: str}], "statistics": {"tumor_ml": float}}


class CaseRecord(TypedDict, total=False):
    """The keys of a prepared case: `made_with` to `label_ids`, and `findings`, of its record.json.

    In index.json all but `labelled`. A damaged case has `id` and `findings` alone.
    """

    id: str
    key: str
    image_sha256: str
    folder: str
    labelled: Labelled
    findings: list[dict[str, str]]
    made_with: str
    files: dict[str, int]
    shape: list[int]
    spacing: list[float]
    boxes: list[list[list[int]]]
    kidney_slices: list[int]
    statistics: dict[str, Any]
    label_ids: list[int]


# Type, shape, and whether the first axis is the one that runs fastest.
Header = tuple[str, tuple[int, ...], bool]


def read_record(folder: Path) -> CaseRecord | None:
    """Read a cached case's record; None where sizes and headers of its arrays show it not to be whole."""
    record = cast("CaseRecord | None", read_object(folder / "record.json", WHOLE))
    try:
        whole = record is not None and is_whole(record, folder)
    except OSError:
        return None
    return record if whole else None


def is_whole(record: CaseRecord, folder: Path) -> bool:
    """Tell whether a record is possible, and the arrays have the kinds and sizes that follow from it."""
    names = ("image", "label", "coarse_image", "coarse_label", "tumor_points")
    image, label, coarse_image, coarse_label, points = (read_npy_header(folder / f"{name}.npy") for name in names)
    if coarse_image is None or points is None:
        return False
    whole, planes, (_, (count, *_), by_column) = tuple(record["shape"]), coarse_image[1], points
    (first, last), boxes = record["kidney_slices"], record["boxes"]
    return (
        (image, label) == (("<i2", whole, False), ("|u1", whole, False))
        and (coarse_image, coarse_label) == (("<i2", planes, False), ("|u1", planes, False))
        and points == ("<i4", (count, 3), by_column)
        and all((folder / name).stat().st_size == size for name, size in record["files"].items())
        and all(0 <= low < high <= size for box in boxes for low, high, size in zip(*box, whole, strict=True))
        and len(boxes) > 0
        and min(record["spacing"]) > 0
        and 0 <= first <= last < planes[0]
    )


def read_npy_header(path: Path) -> Header | None:
    """Read the header of a .npy file; None where it is damaged, or the file has another size.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        except OSError:
            raise
        except Exception:  # numpy raises whatever the damage leads it to
            return None
        size = os.fstat(stream.fileno()).st_size - stream.tell()
    fits = version == (1, 0) and len(shape) > 0 and size == math.prod(shape) * dtype.itemsize
    return (dtype.str, shape, by_column) if fits else None
