"""Each case decoded once: memory-mapped arrays, keyed by what they were made from.

A case's folder holds
    image.npy         int16 (z, y, x) HU at original resolution
    label.npy         uint8 (z, y, x)
    coarse_image.npy  int16 (z, size, size) HU on the coarse grid
    coarse_label.npy  uint8 (z, size, size)
    tumor_points.npy  int32 (n, 3) voxels of tumor, to centre patches on
    record.json       spacing, boxes and statistics
and appears by one rename when all of it is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from kits.data.index import Case
from kits.data.validate import read_pair
from kits.errors import KitsError
from kits.intensity import PAD_HU
from kits.labels import BACKGROUND, KIDNEY, TUMOR
from kits.roi import Box, coverage, find_rois
from kits.volume import Volume, labels_to_coarse, plane_grid, to_coarse

# Raised whenever the arrays change their meaning, so that an older cache is never read.
FORMAT = 1
SLAB = 32
POINTS = 2000


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """SHA-256 of a plain container."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def case_key(case: Case, settings: dict[str, Any]) -> str:
    """What a cached case was made from: both files' bytes, the settings and the format of the cache.

    Raises:
        KitsError: a file of the case cannot be read.
    """
    try:
        files = [file_digest(case.image), file_digest(case.label)]
    except OSError as error:
        raise KitsError(f"{error.filename}: cannot be read ({error.strerror}); every case needs both files") from error
    return digest([FORMAT, settings, files])


def prepare_case(case: Case, settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Write a case's arrays unless they are there already.

    Args:
        settings: `coarse_size` (pixels), `roi_rule` (`count`, `min_voxels`) and `classes` (their names in label order).

    Returns:
        The case's record, with its id, key and folder (relative to the cache).

    Raises:
        KitsError: the case is damaged; the text names the file.
    """
    key = case_key(case, settings)
    folder = cache / "cases" / f"{case.id}-{key[:16]}"
    if not (folder / "record.json").is_file():
        image, label = read_pair(case, settings["classes"])
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            record = write_arrays(case, image, label, settings, partial)
            (partial / "record.json").write_text(json.dumps(record, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    record = json.loads((folder / "record.json").read_text())
    return {"id": case.id, "key": key, "folder": str(folder.relative_to(cache)), **record}


def write_arrays(case: Case, image: Volume, label: Volume, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All arrays of one case, and the record of what is in them."""
    grid = plane_grid(image.array.shape, settings["coarse_size"])
    coarse_label = labels_to_coarse(label.array, grid)
    rule = settings["roi_rule"]
    found = find_rois(coarse_label > BACKGROUND, count=rule["count"], min_voxels=rule["min_voxels"])
    boxes = [Box(*grid.to_native(box.start, box.stop)) for box in found]
    if not boxes:
        raise KitsError(
            f"{case.label}: no kidney region of more than {rule['min_voxels']} voxels on the"
            f" {settings['coarse_size']} grid; lower data.roi_rule.min_voxels or name the case in data.exclude"
        )
    save_slabs(folder / "image.npy", image.array, np.int16)
    save_slabs(folder / "label.npy", label.array, np.uint8)
    np.save(folder / "coarse_image.npy", to_coarse(image.array, grid, PAD_HU))
    np.save(folder / "coarse_label.npy", coarse_label)
    points = tumor_points(label.array)
    np.save(folder / "tumor_points.npy", points)
    return {
        "shape": list(image.array.shape),
        "spacing": list(image.spacing),
        "boxes": [box.to_list() for box in boxes],
        "kidney_slices": kidney_slices(coarse_label),
        "statistics": statistics(image, label, boxes),
    }


def save_slabs(path: Path, array: np.ndarray, dtype: type) -> None:
    """Write a permuted view as a plain (z, y, x) file, a few slices at a time."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=array.shape)
    for start in range(0, len(array), SLAB):
        out[start : start + SLAB] = array[start : start + SLAB]
    out.flush()


def tumor_points(label: np.ndarray) -> np.ndarray:
    """Up to POINTS tumor voxels (n, 3), drawn with a fixed seed; label is (z, y, x)."""
    points = np.argwhere(label == TUMOR).astype(np.int32)
    if len(points) > POINTS:
        points = points[np.random.default_rng(0).choice(len(points), POINTS, replace=False)]
    return points


def kidney_slices(coarse_label: np.ndarray) -> list[int]:
    """First and last slice with a kidney."""
    found = np.flatnonzero((coarse_label > BACKGROUND).any(axis=(1, 2)))
    return [int(found[0]), int(found[-1])]


def statistics(image: Volume, label: Volume, boxes: list[Box]) -> dict[str, Any]:
    """What the fingerprint reports of a case: volumes in mL, HU percentiles, what the ROI rule keeps."""
    voxel_ml = float(np.prod(image.spacing)) / 1000
    result: dict[str, Any] = {"roi_share": sum(float(np.prod(box.shape)) for box in boxes) / label.array.size}
    for name, value in (("kidney", KIDNEY), ("tumor", TUMOR)):
        mask = label.array == value
        count = int(mask.sum())
        result[f"{name}_ml"] = count * voxel_ml
        if count:
            percentiles = np.percentile(image.array[mask], [0.5, 50, 99.5])
            result[f"{name}_hu"] = [float(value) for value in percentiles]
            result[f"{name}_in_rois"] = coverage(boxes, mask)
    return result
