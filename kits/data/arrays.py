"""A decoded case to the arrays that training reads, slab by slab, no volume twice in memory.

Files are written plainly rather than through a memory map, whose pages would count as this process's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kits.core.labels import BACKGROUND, TUMOR
from kits.volume import (
    Spacing,
    Triple,
    Volume,
    average_slices,
    bounding_slices,
    coarse_planes,
    labels_to_coarse,
    plane_grid,
    prevailing_slices,
    slabs,
    to_coarse,
)
from kits.volume.components import connected
from kits.volume.hu import AIR, BINS, FAT, PAD_HU, SOFT, ZERO, histogram, peak, percentile
from kits.volume.rois import Box, coverage, find_rois

POINTS = 2000
# Kidney regions that are counted; only the largest of them, `roi_rule.count`, become ROIs.
MANY = 16


@dataclass(frozen=True)
class Labels:
    """The part of a label map that is kept once it is written.

    Attributes:
        shape: (z, y, x) of the whole map.
        start: (z, y, x) of the crop.
        crop: uint8, the smallest window with every labelled voxel; empty where there is none.
        coarse: uint8 (planes, size, size) on the coarse grid.
    """

    shape: Triple
    start: Triple
    crop: np.ndarray
    coarse: np.ndarray


def start_npy(stream: BinaryIO, shape: Sequence[int], dtype: type) -> None:
    """Make the header of a .npy file whose array follows in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(stream, header)


def write_labels(label: Volume, size: int, folder: Path, z_mm: float | None = None) -> Labels:
    """Write label.npy and coarse_label.npy; slices without labels become holes of the file.

    Args:
        size, z_mm: of the coarse grid, see `plane_grid` and `coarse_planes`.
    """
    array = label.array
    grid = plane_grid(array.shape, size)
    coarse = np.zeros(grid.shape, np.uint8)
    occupied = np.flatnonzero(array.any(axis=(1, 2)))
    first, stop = (int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else (0, 0)
    with (folder / "label.npy").open("wb") as stream:
        start_npy(stream, array.shape, np.uint8)
        begin, plane = stream.tell(), array.shape[1] * array.shape[2]
        stream.seek(begin + first * plane)
        for z, slab in slabs(array[first:stop]):
            stream.write(slab.data)
            coarse[first + z : first + z + len(slab)] = labels_to_coarse(slab, plane_grid(slab.shape, size))
        stream.truncate(begin + len(array) * plane)
    coarse = prevailing_slices(coarse, coarse_planes(len(array), label.spacing[0], z_mm))
    np.save(folder / "coarse_label.npy", coarse)
    window = bounding_slices(array[first:stop])
    rows, columns = window[1:] if window else (slice(0, 0), slice(0, 0))
    crop = np.ascontiguousarray(array[first:stop, rows, columns])
    return Labels(grid.native, (first, rows.start, columns.start), crop, coarse)


@dataclass(frozen=True)
class WrittenImage:
    """The part of an image that is kept once it is written: histograms of HU and the coarse image."""

    spacing: Spacing
    counts: np.ndarray
    of_label: list[np.ndarray]
    coarse: np.ndarray


def write_image(
    image: Volume, labels: Labels | None, classes: int, size: int, folder: Path, z_mm: float | None = None
) -> WrittenImage:
    """Write image.npy and coarse_image.npy (int16 HU); `labels` only where they have its shape."""
    shape = image.array.shape
    coarse = np.empty(plane_grid(shape, size).shape, np.int16)
    counts = np.zeros(BINS, np.int64)
    of_label = [np.zeros(BINS, np.int64) for _ in range(classes)]
    with (folder / "image.npy").open("wb") as stream:
        start_npy(stream, shape, np.int16)
        for z, slab in slabs(image.array):
            stream.write(slab.data)
            coarse[z : z + len(slab)] = to_coarse(slab, plane_grid(slab.shape, size), PAD_HU)
            counts += histogram(slab)
            if labels is not None:
                count_labels(slab, z, labels, of_label)
    coarse = average_slices(coarse, coarse_planes(len(coarse), image.spacing[0], z_mm))
    np.save(folder / "coarse_image.npy", coarse)
    return WrittenImage(image.spacing, counts, of_label, coarse)


def count_labels(slab: np.ndarray, z: int, labels: Labels, of_label: list[np.ndarray]) -> None:
    """Add the HU of a slab that starts at slice `z` to its labels' histograms."""
    low, high = max(z - labels.start[0], 0), min(z + len(slab) - labels.start[0], len(labels.crop))
    if low >= high:
        return
    _, y, x = labels.start
    part = labels.crop[low:high]
    hu = slab[low + labels.start[0] - z : high + labels.start[0] - z, y : y + part.shape[1], x : x + part.shape[2]]
    for value in range(1, len(of_label)):
        of_label[value] += np.bincount(hu[part == value].astype(np.int32) + ZERO, minlength=BINS)


def find_boxes(labels: Labels, min_voxels: int) -> list[Box]:
    """Find native boxes of kidney regions of more than `min_voxels` on the coarse grid, largest first."""
    grid = plane_grid(labels.shape, labels.coarse.shape[1], len(labels.coarse))
    found = find_rois(labels.coarse > BACKGROUND, count=MANY, min_voxels=min_voxels)
    return [Box(*grid.to_native(box.start, box.stop)) for box in found]


def tumor_points(labels: Labels) -> np.ndarray:
    """Draw up to POINTS tumor voxels (n, 3) int32 of the whole map, with a fixed seed."""
    points = np.argwhere(labels.crop == TUMOR).astype(np.int32)
    if len(points) > POINTS:
        points = points[np.random.default_rng(0).choice(len(points), POINTS, replace=False)]
    return points + np.array(labels.start, np.int32)


def kidney_slices(coarse_label: np.ndarray) -> list[int]:
    """Find the first and the last slice with a kidney."""
    found = np.flatnonzero((coarse_label > BACKGROUND).any(axis=(1, 2)))
    return [int(found[0]), int(found[-1])]


def statistics(scan: WrittenImage, labels: Labels, boxes: list[Box], kidneys: int, classes: Sequence[str]) -> dict[str, Any]:
    """Compute the fingerprint of a case: mL, HU percentiles, pieces, ROIs in mm and what they keep."""
    voxel_ml = float(np.prod(scan.spacing)) / 1000
    moved = [Box.of(np.subtract(box.start, labels.start), np.subtract(box.stop, labels.start)) for box in boxes]
    result: dict[str, Any] = {
        "peaks_hu": {name: peak(scan.counts, window) for name, window in (("air", AIR), ("fat", FAT), ("soft", SOFT))},
        "kidneys": kidneys,
        "rois": len(boxes),
        "roi_mm": [[round(n * step, 3) for n, step in zip(box.shape, scan.spacing, strict=True)] for box in boxes],
        "roi_share": sum(float(np.prod(box.shape)) for box in boxes) / float(np.prod(labels.shape)),
        "tumor_pieces": pieces(labels.crop == TUMOR),
    }
    for value, name in enumerate(classes):
        if value == BACKGROUND:
            continue
        counts = scan.of_label[value]
        result[f"{name}_ml"] = int(counts.sum()) * voxel_ml
        if counts.any():
            result[f"{name}_hu"] = [percentile(counts, percent) for percent in (0.5, 50, 99.5)]
            result[f"{name}_in_rois"] = coverage(moved, labels.crop == value)
    return result


def pieces(mask: np.ndarray) -> int:
    """Count the 26-connected regions of a mask (z, y, x)."""
    window = bounding_slices(mask)
    if window is None:
        return 0
    return int(connected(mask[window]).max())
