"""A real CT by another scanner of another patient: spacing, extent, size, shape, kernel, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits.config.schema.phantoms import Phantom
from kits.painter.fields import Field, Lattice, Triple, enlarge_slice, smooth_noise
from kits.painter.grain import Grain

AIR = -1024.0
# Distance of the smooth deformation's points (z, y, x) in mm, and the lattice that it is drawn on.
BEND_CELL, BEND_STEP = (70.0, 60.0, 60.0), (25.0, 12.0, 12.0)
# Around the kidneys in the plane; a field of view is not cut closer.
CLEAR_MM = 25.0
LARGEST_MATRIX = 512


@dataclass(frozen=True)
class Made:
    """A case to write: HU float32 and labels uint8 (z, y, x), spacing (z, y, x) mm."""

    hu: Field
    labels: NDArray[np.uint8]
    spacing: Triple


def crop_slices(rng: np.random.Generator, made: Made, options: Phantom) -> Made:
    """Let the scan begin and end some mm beyond the kidneys, in a share of the cases within them."""
    planes = np.flatnonzero(made.labels.any(axis=(1, 2)))
    low, high = int(planes[0]), int(planes[-1]) + 1
    first, last = (round(float(rng.uniform(*options.real.margin_mm)) / made.spacing[0]) for _ in range(2))
    start, stop = max(low - first, 0), min(high + last, len(made.labels))
    if rng.random() < options.real.cropped:
        lost = round(float(rng.uniform(0.15, 0.6)) * (high - low))
        start, stop = (low + lost, stop) if rng.random() < 0.5 else (start, high - lost)
    return Made(made.hu[start:stop], made.labels[start:stop], made.spacing)


def regrid(rng: np.random.Generator, made: Made, options: Phantom) -> Made:
    """Resample to another spacing, with the body turned, of another size and bent.

    Slices are joined (means over the new thickness) or split (lines between their middles), pixels lie on lines between pixels.
    """
    real, (depth, height, width) = options.real, made.hu.shape
    size = np.exp(rng.uniform(-real.size, real.size) + rng.uniform(-real.size, real.size, 3) / 3)
    old = np.array(made.spacing) * size
    spacing = (round(float(rng.uniform(*options.spacing_z)), 2), *(round(float(rng.uniform(*options.spacing_xy)), 4),) * 2)
    hu = made.hu
    if spacing[0] > old[0]:
        hu = ndimage.gaussian_filter1d(hu, 0.3 * np.sqrt(spacing[0] ** 2 - old[0] ** 2) / old[0], axis=0, mode="nearest")

    slices = max(1, int((depth - 1) * old[0] / spacing[0]) + 1)
    view = rng.uniform(0.85, 1.1, 2)
    rows, columns = (
        int(np.clip(round(n * o * v / spacing[1]), 16, max(LARGEST_MATRIX, n)))
        for n, o, v in zip((height, width), old[1:], view, strict=True)
    )
    lattice = Lattice.cover((0, 0, 0), (slices * spacing[0], rows * spacing[1], columns * spacing[2]), BEND_STEP)
    bends = [real.bend_mm * smooth_noise(rng, lattice, BEND_CELL) for _ in range(2)]
    points = [np.arange(n) * step for n, step in zip((slices, rows, columns), spacing, strict=True)]
    z_weights, y_weights, x_weights = lattice.weights(points)
    turn = np.deg2rad(rng.uniform(-real.turn_degrees, real.turn_degrees))
    middle = window_center(rng, made.labels, old, (rows * spacing[1], columns * spacing[2]))
    y = (points[1] - points[1].mean())[:, None].astype(np.float32)
    x = (points[2] - points[2].mean())[None, :].astype(np.float32)
    base = (np.cos(turn) * y - np.sin(turn) * x + middle[0], np.sin(turn) * y + np.cos(turn) * x + middle[1])

    out, labels = np.empty((slices, rows, columns), np.float32), np.zeros((slices, rows, columns), np.uint8)
    controls = [(z_weights @ bend.reshape(len(bend), -1)).reshape(slices, *bend.shape[1:]) for bend in bends]
    for z in range(slices):
        place = [
            (start + enlarge_slice(control[z], y_weights, x_weights)) / np.float32(step)
            for start, control, step in zip(base, controls, old[1:], strict=True)
        ]
        at = min(points[0][z] / old[0], depth - 1)
        below = min(int(at), max(depth - 2, 0))
        above, t = min(below + 1, depth - 1), np.float32(at - below)
        plane = hu[below] + t * (hu[above] - hu[below])
        out[z] = ndimage.map_coordinates(plane, place, order=1, mode="constant", cval=AIR)
        labels[z] = mix_labels(made.labels[below], made.labels[above], t, place)
    return Made(out, labels, spacing)


def window_center(rng: np.random.Generator, labels: NDArray[np.uint8], step: Field, window: tuple[float, float]) -> list[float]:
    """Choose the middle (y, x mm) of a field of view near the scan's that shows the kidneys if it can."""
    found = []
    for axis, (wide, size) in enumerate(zip(window, step[1:], strict=True)):
        seen = np.flatnonzero(labels.any(axis=(0, 2 - axis))) * size
        low, high = seen[-1] + CLEAR_MM - wide / 2, seen[0] - CLEAR_MM + wide / 2
        wanted = labels.shape[axis + 1] * size / 2 + rng.normal(0, 12)
        found.append(float((low + high) / 2 if low > high else np.clip(wanted, low, high)))
    return found


def mix_labels(below: NDArray[np.uint8], above: NDArray[np.uint8], t: np.float32, place: list[Field]) -> NDArray[np.uint8]:
    """Mix the labels of two slices at points between them: the largest share, where all make a half."""
    labels, best, whole = (np.zeros(place[0].shape, kind) for kind in (np.uint8, np.float32, np.float32))
    for label in np.union1d(below, above):
        if label:
            plane = (1 - t) * (below == label) + t * (above == label)
            share = ndimage.map_coordinates(plane.astype(np.float32), place, order=1, mode="constant")
            labels[share > best] = label
            best, whole = np.maximum(best, share), whole + share
    labels[whole < 0.5] = 0
    return labels


def refilter(rng: np.random.Generator, made: Made, grain: Grain, options: Phantom) -> Made:
    """Give a share of the cases a softer or sharper kernel, and more noise of the scan's own grain."""
    hu, real = made.hu, options.real
    seen = hu > AIR
    if rng.random() < real.filtered:
        sharper = rng.random() < 0.5
        width = 0.9 if sharper else float(rng.uniform(0.3, 0.9))
        soft = ndimage.gaussian_filter(hu, [0.0, width / made.spacing[1], width / made.spacing[2]])
        hu = hu + np.float32(rng.uniform(0.2, 1.0)) * (hu - soft) if sharper else soft
    if (level := float(rng.uniform(0, real.noise_hu))) > 0 and grain.hu > 0:
        hu = hu + np.float32(level / grain.hu) * grain.draw(rng, hu.shape)
    return Made(np.where(seen, np.clip(hu, AIR, 3071), AIR), made.labels, made.spacing)
