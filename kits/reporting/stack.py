"""A part of a CT and its labels on a grid that a page can hold: axial, coronal and sagittal planes."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from math import ceil, sqrt

import numpy as np

from kits.reporting.scene import Scene, length
from kits.reporting.slices import WINDOW_HU, body_window
from kits.volume import Spacing, Triple, slabs
from kits.volume.windows import Window

PIXEL_MM = 0.8  # in the plane; KiTS19 has 0.44 to 1.04
SLICE_MM = 2.5
MOST_VOXELS = 3_600_000  # a larger part is shown on a coarser grid
MARGIN_MM = (20.0, 30.0, 30.0)  # (z, y, x) around what is marked
QUALITY = 40  # of WebP: noise is lost, edges stay
OVERVIEW_MM = 2.0
SLAB_MM = 20.0


@dataclass(frozen=True)
class Stack:
    """Gray values and labels on one grid.

    Attributes:
        gray: uint8 (z, y, x), `WINDOW_HU` from black to white.
        labels: uint8 (z, y, x): the prediction, and the truth times 16.
        start: where the grid begins in the volume, (z, y, x) voxels.
        factors: voxels of the volume per voxel here.
        spacing: (z, y, x) mm of this grid.
    """

    gray: np.ndarray
    labels: np.ndarray
    start: Triple
    factors: Triple
    spacing: Spacing

    @property
    def columns(self) -> int:
        """Slices side by side in the mosaic, so that it is about square."""
        n, height, width = self.gray.shape
        return max(1, min(n, round(sqrt(n * height / width))))

    def mosaic(self) -> bytes:
        """Draw all slices in one WebP picture, row by row from the first slice."""
        n, height, width = self.gray.shape
        rows = ceil(n / self.columns)
        tiles = np.zeros((rows * self.columns, height, width), np.uint8)
        tiles[:n] = self.gray
        return webp(tiles.reshape(rows, self.columns, height, width).swapaxes(1, 2).reshape(rows * height, -1))


def stack_of(scene: Scene) -> Stack:
    """Stack what is marked with a margin around it, or the body where nothing is."""
    window = body_window(scene)
    if scene.marked is not None:
        edges = [round(margin / step) for margin, step in zip(MARGIN_MM, scene.spacing, strict=True)]
        window = scene.clip((part.start - edge, part.stop + edge) for part, edge in zip(scene.marked, edges, strict=True))
    factors = factors_of(window, scene.spacing)
    whole = tuple(
        slice(part.start, part.start + length(part) // factor * factor) for part, factor in zip(window, factors, strict=True)
    )
    depth, height, width = (length(part) // factor for part, factor in zip(whole, factors, strict=True))
    gray = np.empty((depth, height, width), np.uint8)
    fz, fy, fx = factors
    for place, block in slabs(scene.hu[whole], fz):
        means = block.reshape(fz, height, fy, width, fx).mean(axis=(0, 2, 4), dtype=np.float32)
        gray[place // fz] = gray_of(means)
    # Of labels the voxel in the middle: a mean of labels is none.
    middle = tuple(slice(part.start + f // 2, part.stop, f) for part, f in zip(whole, factors, strict=True))
    labels = scene.prediction[middle].copy()
    if scene.truth is not None:
        labels += scene.truth[middle] * np.uint8(16)
    z, y, x = (part.start for part in whole)
    dz, dy, dx = (step * factor for step, factor in zip(scene.spacing, factors, strict=True))
    return Stack(gray, labels, (z, y, x), factors, (dz, dy, dx))


def gray_of(hu: np.ndarray) -> np.ndarray:
    """Turn HU within `WINDOW_HU` into uint8."""
    low, high = WINDOW_HU
    return ((hu - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)


def factors_of(window: Window, spacing: Spacing) -> Triple:
    """Choose how many voxels (z, y, x) become one: the target spacing, coarser in large windows."""
    size = [length(part) for part in window]
    scale = 1.0
    while True:
        targets = (SLICE_MM * scale, PIXEL_MM * scale, PIXEL_MM * scale)
        z, y, x = (min(n, max(1, round(t / step))) for n, t, step in zip(size, targets, spacing, strict=True))
        if (size[0] // z) * (size[1] // y) * (size[2] // x) <= MOST_VOXELS:
            return z, y, x
        scale *= 1.1


def overview(scene: Scene, row: int) -> tuple[bytes, float, float]:
    """Draw a coronal slab of the scan around a row, head up: a WebP, and its width and height in mm."""
    from PIL import Image

    dz, dy, dx = scene.spacing
    half = max(1, round(SLAB_MM / 2 / dy))
    means = scene.hu[:, max(0, row - half) : row + half].mean(axis=1, dtype=np.float32)[::-1]
    width, height = means.shape[1] * dx, means.shape[0] * dz
    size = max(1, round(width / OVERVIEW_MM)), max(1, round(height / OVERVIEW_MM))
    return webp(np.asarray(Image.fromarray(gray_of(means)).resize(size, Image.Resampling.BOX))), width, height


def webp(gray: np.ndarray) -> bytes:
    """Compress a uint8 picture (rows, columns)."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(gray).save(stream, "WEBP", quality=QUALITY, method=4)
    return stream.getvalue()
