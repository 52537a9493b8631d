"""Painted CT from a label map, where both modes of the phantom end: labels and spacing in, HU out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from kits.painter.anatomy import paint_surroundings
from kits.painter.fields import Field, Lattice, Triple, enlarge_slice, resample, signed_distance, smooth_noise
from kits.painter.frame import find_body
from kits.painter.kidney import MARGIN_MM, Cyst, Interior, paint_interior
from kits.painter.phases import draw_contrast
from kits.painter.scanner import Detector, draw_scanner
from kits.painter.variety import vary_contrast, vary_kidney

# Surroundings: fine enough that an edge is no blurrier than the scanner makes it. Distances need less.
COARSE_MM = (2.5, 1.5, 1.5)
DISTANCE_MM = (3.0, 3.0, 3.0)
DETAIL_MM = (1.6, 1.1, 1.1)
SLAB = 24


def paint(
    labels: NDArray[np.uint8],
    spacing: Triple,
    rng: np.random.Generator,
    *,
    cysts: list[Cyst] | None,
    phases: dict[str, float],
    variety: float,
    decoys: float,
    out: NDArray[np.int16],
) -> str:
    """Paint a CT around and inside a label map.

    Args:
        labels: (z, y, x) in LPS: 0 background, 1 kidney, 2 tumor.
        spacing: (z, y, x) mm.
        cysts: where label 1 is a cyst; None draws some at random inside it.
        phases: weight of each contrast phase.
        variety: 0 to 1, how often a case has neighbors like its kidneys that touch them, and uneven kidneys.
        decoys: 0 to 1, how often it has what is mistaken for kidneys.
        out: receives HU, int16, of the labels' shape; may be any view.

    Returns:
        The contrast phase that was drawn.
    """
    depth, height, width = ((n - 1) * size for n, size in zip(labels.shape, spacing, strict=True))
    extent = (depth, height, width)
    coarse = Lattice.cover((0, 0, 0), extent, finest(COARSE_MM, spacing))
    rough = Lattice.cover((0, 0, 0), extent, finest(DISTANCE_MM, spacing))
    sampled = sample(labels, spacing, rough)
    body = find_body(sampled, rough, extent, rng)
    contrast = vary_contrast(rng, draw_contrast(rng, phases), variety)
    distance = resample(signed_distance(sampled > 0, rough.step), rough, coarse)
    around = paint_surroundings(rng, body, contrast, coarse, distance, amount=variety, share=decoys)
    if rng.random() < 0.25:
        around += rng.uniform(2, 9) * smooth_noise(rng, coarse, (15, 5, 110)) * (around > -300)

    fat = float(rng.uniform(-115, -90))
    interiors = []
    for corner, opposite in boxes(sampled > 0, rough):
        lattice = Lattice.cover(corner, opposite, finest(DETAIL_MM, spacing))
        detail = sample(labels, spacing, lattice)
        placed = random_cysts(rng, detail, lattice) if cysts is None else cysts
        interior = paint_interior(rng, detail, lattice, contrast, fat, placed)
        interiors.append(replace(interior, kidney=vary_kidney(rng, interior.kidney, lattice, variety)))

    scanner = draw_scanner(rng, extent, spacing)
    detector = Detector(scanner, (labels.shape[1], labels.shape[2]), spacing, rng)
    outer = Layer.of(coarse, spacing, labels.shape)
    inner = [Layer.of(interior.lattice, spacing, labels.shape) for interior in interiors]
    sigma = 0.3 * scanner.slice_mm / spacing[0]
    halo = int(np.ceil(2.5 * sigma))
    for first in range(0, len(labels), SLAB):
        last = min(first + SLAB, len(labels))
        low, high = max(first - halo, 0), min(last + halo, len(labels))
        slab = outer.enlarge(around, low, high)
        for layer, interior in zip(inner, interiors, strict=True):
            fill(slab, labels, low, high, layer, interior)
        slab = ndimage.gaussian_filter1d(slab, sigma, axis=0, mode="nearest", truncate=2.5)
        block = np.stack([detector.expose(image) for image in slab[first - low : last - low]])
        out[first:last] = block
    return contrast.phase


def finest(step: Triple, spacing: Triple) -> Triple:
    """Return `step`, but never finer than the voxels."""
    z, y, x = (max(wanted, given) for wanted, given in zip(step, spacing, strict=True))
    return z, y, x


def sample(labels: NDArray[np.uint8], spacing: Triple, lattice: Lattice) -> NDArray[np.uint8]:
    """Sample the nearest labels at the points of a lattice."""
    index = [
        np.clip(np.rint(axis / size).astype(int), 0, n - 1)
        for axis, size, n in zip(lattice.axes, spacing, labels.shape, strict=True)
    ]
    return np.ascontiguousarray(labels[np.ix_(*index)])


def boxes(inside: NDArray[np.bool_], lattice: Lattice) -> list[tuple[Triple, Triple]]:
    """Find corners (z, y, x mm) of boxes around components with a margin, close ones as one, clipped."""
    near = ndimage.binary_dilation(inside, iterations=2)
    numbered, _ = ndimage.label(near)
    found = []
    for where in ndimage.find_objects(numbered):
        low = [max(float(axis[part.start]) - MARGIN_MM, float(axis[0])) for axis, part in zip(lattice.axes, where, strict=True)]
        high = [
            min(float(axis[part.stop - 1]) + MARGIN_MM, float(axis[-1])) for axis, part in zip(lattice.axes, where, strict=True)
        ]
        found.append(((low[0], low[1], low[2]), (high[0], high[1], high[2])))
    return found


def random_cysts(rng: np.random.Generator, detail: NDArray[np.uint8], lattice: Lattice) -> list[Cyst]:
    """Draw a few balls inside label 1, small where it is thin."""
    inside = np.argwhere(detail == 1)
    if not len(inside):
        return []
    depth = -signed_distance(detail == 1, lattice.step)
    cysts = []
    for _ in range(int(rng.poisson(0.7))):
        index = inside[rng.integers(len(inside))]
        radius = min(float(rng.uniform(2.5, 14)), float(depth[tuple(index)]) + 3)
        z, y, x = (float(axis[k]) for axis, k in zip(lattice.axes, index, strict=True))
        cysts.append(Cyst((z, y, x), radius))
    return cysts


@dataclass(frozen=True)
class Layer:
    """Interpolation from a lattice to the voxels inside its box."""

    box: tuple[slice, slice, slice]
    z: sparse.csr_array
    y: sparse.csr_array
    x: sparse.csr_array

    @classmethod
    def of(cls, lattice: Lattice, spacing: Triple, shape: tuple[int, ...]) -> Layer:
        z, y, x = (
            slice(int(np.ceil(axis[0] / size - 1e-3)), min(int(np.floor(axis[-1] / size + 1e-3)) + 1, n))
            for axis, size, n in zip(lattice.axes, spacing, shape, strict=True)
        )
        points = [np.arange(part.start, part.stop) * size for part, size in zip((z, y, x), spacing, strict=True)]
        return cls((z, y, x), *lattice.weights(points))

    def enlarge(self, field: Field, low: int, high: int) -> Field:
        """Enlarge slices low to high of `field`, counted in the volume, to the voxels of the box."""
        start = self.box[0].start
        rows = self.z[low - start : high - start]
        flat = rows @ field.reshape(len(field), -1)
        return np.stack([enlarge_slice(image, self.y, self.x) for image in flat.reshape(-1, *field.shape[1:])])


def fill(slab: Field, labels: NDArray[np.uint8], low: int, high: int, layer: Layer, interior: Interior) -> None:
    """Put kidney, tumor and sinus into the slab of slices low to high of the volume."""
    first, last = max(low, layer.box[0].start), min(high, layer.box[0].stop)
    if first >= last:
        return
    view = slab[first - low : last - low, layer.box[1], layer.box[2]]
    label = labels[first:last, layer.box[1], layer.box[2]]
    share = np.clip(layer.enlarge(interior.in_sinus, first, last), 0, 1)
    view += np.where(label == 0, share, 0) * (layer.enlarge(interior.sinus, first, last) - view)
    np.copyto(view, layer.enlarge(interior.kidney, first, last), where=(label == 1))
    np.copyto(view, layer.enlarge(interior.tumor, first, last), where=(label == 2))
