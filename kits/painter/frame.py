"""The frame of the body: the place of spine, kidneys and skin, read off a label map.

Everything around the kidneys is painted in a frame whose origin is the middle of the vertebral body at the height of the kidneys:
u grows to the patient's left, v to the back, w to the head (LPS), all in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits.painter.fields import Lattice, Triple

SMALLEST_KIDNEY_ML = 4.0
# nibabel's axis codes I, P, L: slices first, counted downwards, as in KiTS19's files.
KITS19_DIRECTION = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Kidney:
    """One kidney with its tumors in the body frame (mm)."""

    side: int  # -1 right, +1 left, 0 a horseshoe across the midline
    center: Triple  # (w, v, u)
    low: Triple  # corner of the tight box
    high: Triple
    hilum: Triple  # medial edge at mid height


@dataclass(frozen=True)
class Body:
    """Origin of the frame in the volume (z, y, x mm) and the skin, as half-axes about the spine in mm."""

    origin: Triple
    kidneys: tuple[Kidney, ...]
    half_width: float
    front: float
    back: float
    fat: float  # thickness under the skin at the side
    lean: float  # 0 thin .. 1 obese: how much fat is inside
    shift: float  # skin's middle against the spine, along u


def find_body(labels: NDArray[np.uint8], lattice: Lattice, field_of_view: Triple, rng: np.random.Generator) -> Body:
    """Find the body's frame in a label map sampled on `lattice`.

    Args:
        labels: (z, y, x) in LPS, on `lattice` (coarse is enough).
        field_of_view: extent of the volume (z, y, x) in mm.
    """
    pieces = kidney_pieces(labels > 0, lattice)
    x_mid = field_of_view[2] / 2
    spine_x = spine_from_kidneys(pieces, x_mid, rng)
    centers = [piece.mean(axis=0) for piece in pieces]
    parenchyma = np.argwhere(labels == 1)
    y_kidney = float(lattice.y[parenchyma[:, 1]].mean()) if len(parenchyma) else float(centers[0][1])
    spine_y = y_kidney + rng.normal(1, 5)
    if any(piece[:, 2].min() < spine_x - 12 and piece[:, 2].max() > spine_x + 12 for piece in pieces):
        # A horseshoe, or a mass beyond the midline: the spine is behind it.
        crossing = np.concatenate([piece[abs(piece[:, 2] - spine_x) < 15] for piece in pieces])
        spine_y = max(spine_y, float(np.quantile(crossing[:, 1], 0.9)) + 14)
    origin = (float(np.mean([center[0] for center in centers])), spine_y, spine_x)
    kidneys = tuple(describe(piece - np.array(origin)) for piece in pieces)

    every = np.concatenate(pieces) - np.array(origin)
    lean = float(rng.beta(1.6, 1.6))
    fat = 6 + 34 * lean * rng.uniform(0.5, 1.2)
    wall = fat + rng.uniform(14, 22)
    needed = float(np.quantile(abs(every[:, 2]), 0.999)) + wall
    shift = float(rng.normal(0, 3))
    half_width = max(needed, min(field_of_view[2] / 2 * rng.uniform(0.76, 0.95), 125 + 70 * lean + rng.normal(0, 8)))
    depth = half_width * rng.uniform(1.25, 1.55)
    back = max(float(every[:, 1].max()) + 0.6 * wall + 6, 66 + 0.6 * fat + rng.normal(0, 5))
    front = max(depth - back, 70 + fat, -float(every[:, 1].min()) + 0.8 * wall)
    return Body(origin, kidneys, half_width, front, back, fat, lean, shift)


def kidney_pieces(mask: NDArray[np.bool_], lattice: Lattice) -> list[NDArray[np.float64]]:
    """Find voxel positions (n, 3) in mm of the one or two largest components; one stand-in if none."""
    numbered, _ = ndimage.label(mask)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    smallest = SMALLEST_KIDNEY_ML * 1000 / float(np.prod(lattice.step))
    chosen = [number for number in np.argsort(sizes)[::-1][:2] if sizes[number] > smallest]
    chosen = chosen or [int(np.argmax(sizes))]
    pieces = []
    for number in chosen:
        index = np.argwhere(numbered == number) if sizes[number] else np.array([[n // 2 for n in mask.shape]])
        pieces.append(np.stack([axis[index[:, k]] for k, axis in enumerate(lattice.axes)], axis=1).astype(float))
    if len(pieces) == 2 and abs(pieces[0][:, 2].mean() - pieces[1][:, 2].mean()) < 50:
        return [np.concatenate(pieces)]
    return pieces


def spine_from_kidneys(pieces: list[NDArray[np.float64]], x_mid: float, rng: np.random.Generator) -> float:
    """Compute x of the spine (mm): between two kidneys, medial of one, in a horseshoe's middle."""
    if len(pieces) == 2:
        first, second = sorted(pieces, key=lambda piece: float(piece[:, 2].mean()))
        between = (np.quantile(first[:, 2], 0.97) + np.quantile(second[:, 2], 0.03)) / 2
        return float(np.clip(between, x_mid - 30, x_mid + 30))
    (only,) = pieces
    left, right = np.quantile(only[:, 2], [0.03, 0.97])
    if left < x_mid - 25 and right > x_mid + 25:
        return float(np.clip((left + right) / 2, x_mid - 25, x_mid + 25))
    inner = left - rng.uniform(34, 46) if only[:, 2].mean() > x_mid else right + rng.uniform(34, 46)
    return float(np.clip(inner, x_mid - 40, x_mid + 40))


def describe(piece: NDArray[np.float64]) -> Kidney:
    """Find side, box, center and hilum of a kidney given by its voxels (n, 3) as (w, v, u) in mm."""
    low, high, center = piece.min(axis=0), piece.max(axis=0), piece.mean(axis=0)
    crosses = low[2] < -15 and high[2] > 15 and abs(center[2]) < 25
    side = 0 if crosses else int(np.sign(center[2]) or 1)
    level = piece[abs(piece[:, 0] - center[0]) < 12]
    level = level if len(level) else piece
    medial = float(level[:, 2].min() if center[2] > 0 else level[:, 2].max())
    hilum = (float(center[0]), float(level[:, 1].mean()) - 4, medial)
    return Kidney(side, as_triple(center), as_triple(low), as_triple(high), hilum)


def as_triple(values: NDArray[np.float64]) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


def shifted(lattice: Lattice, origin: Triple) -> Lattice:
    """Return the same points counted from `origin` (z, y, x mm)."""
    z, y, x = (np.asarray(axis - start, np.float32) for axis, start in zip(lattice.axes, origin, strict=True))
    return Lattice(z, y, x)
