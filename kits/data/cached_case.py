"""A case of the cache: its record, whether it is there whole, and its arrays as memory maps."""

from __future__ import annotations

import math
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from kits.core.errors import KitsError
from kits.core.plain_files import read_object
from kits.volume import Spacing
from kits.volume.rois import Box

if TYPE_CHECKING:
    from kits.data.classes import Labelled

ARRAYS = ("image", "label", "coarse_image", "coarse_label", "tumor_points")
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
    image, label, coarse_image, coarse_label, points = (read_npy_header(folder / f"{name}.npy") for name in ARRAYS)
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


class CachedCase:
    """One case of the cache; its arrays are opened when first read, in whichever process reads them."""

    def __init__(self, cache: Path, record: CaseRecord) -> None:
        self.id: str = record["id"]
        self.folder = cache / record["folder"]
        z, y, x = record["spacing"]
        self.spacing: Spacing = z, y, x
        self.shape: tuple[int, ...] = tuple(record["shape"])
        self.boxes = [Box.from_list(box) for box in record["boxes"]]
        first, last = record["kidney_slices"]
        self.kidney_slices = first, last

    def _open(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @cached_property
    def image(self) -> np.ndarray:
        """int16 HU (z, y, x) at original resolution."""
        return self._open("image")

    @cached_property
    def label(self) -> np.ndarray:
        """uint8 (z, y, x) at original resolution."""
        return self._open("label")

    @cached_property
    def coarse_image(self) -> np.ndarray:
        """int16 HU (z, size, size) on the coarse grid."""
        return self._open("coarse_image")

    @cached_property
    def coarse_label(self) -> np.ndarray:
        """uint8 (z, size, size) on the coarse grid."""
        return self._open("coarse_label")

    @cached_property
    def tumor_points(self) -> np.ndarray:
        """int32 (n, 3): voxels of tumor at original resolution."""
        points: np.ndarray = np.load(self.folder / "tumor_points.npy")
        if not ((points >= 0) & (points < self.shape)).all():
            raise self.damaged("tumor_points", "has voxels outside the scan")
        return points

    def damaged(self, name: str, what: str) -> KitsError:
        """Return the refusal of an array that `kits.prepare` did not write so."""
        return KitsError(f"{self.folder / name}.npy: damaged ({what}); delete {self.folder} and run kits.prepare again")

    def __getstate__(self) -> dict[str, object]:
        # A memory map that travels to a worker would travel as its whole content.
        return {name: value for name, value in self.__dict__.items() if name not in ARRAYS}
