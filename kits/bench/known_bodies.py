"""Bodies whose numbers are known, and how far the clinical read-out is from them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from kits.bench.changed_maps import THICK_MM, sliced, turned
from kits.io import read_labels, write_labels
from kits.readout import CaseReading, read_out
from kits.readout.outline import sphere
from kits.volume import Grid, Spacing

# Half axes in mm (z, y, x) of a kidney, and how far its center lies from the patient's middle.
ELLIPSOID, BOX, FROM_MIDDLE = (52.0, 26.0, 29.0), (48.0, 23.0, 26.0), 65.0
# The notch that stands for the sinus: half its height and width, and where it ends, mm.
NOTCH = (16.0, 8.0, -10.0)
# Heights in mm of a ball of 8 mm, and its points for L. Not close to the notch's end, where slices of 5 mm cannot tell how much
# of it lies beyond: one map would be that of a notch of 16 mm and of one of 17.5 mm, and so 2 and 3 points.
HEIGHTS = {42.0: 1, 21.0: 2, 3.0: 3}
Inside = Callable[[np.ndarray], np.ndarray]
FACES = {"anterior": -24.0, "posterior": 24.0}  # mm to the back


def in_ellipsoid(points: np.ndarray) -> np.ndarray:
    """Tell which points (..., 3), over the half axes, lie in the unit ball."""
    return np.asarray((points**2).sum(axis=-1) <= 1)


def in_box(points: np.ndarray) -> np.ndarray:
    """Tell which points (..., 3), over the half axes, lie in the cube of edge 2."""
    return np.asarray(np.abs(points).max(axis=-1) <= 1)


BODIES: dict[str, tuple[Spacing, Inside]] = {"ellipsoid": (ELLIPSOID, in_ellipsoid), "box": (BOX, in_box)}


def one_body(name: str, spacing: Spacing, radii: tuple[float, float], seed: tuple[int, ...]) -> dict[str, float]:
    """Measure the errors of one ball at a random place on or in a body in a random pose."""
    half, inside = BODIES[name]
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    radius = rng.uniform(*radii)
    toward = rng.normal(size=3)
    surface = toward / (np.linalg.norm(toward / half) if name == "ellipsoid" else np.abs(toward / half).max())
    center = surface * (1 - rng.uniform(-0.2, 0.8) * radius / np.linalg.norm(surface))
    reach = np.linalg.norm(rotation * half, axis=1) if name == "ellipsoid" else np.abs(rotation) @ half
    middle = rotation @ center
    low, high = np.minimum(-reach, middle - radius) - 10, np.maximum(reach, middle + radius) + 10
    axes = [np.arange(a, b, step) + rng.uniform(-0.5, 0.5) * step for a, b, step in zip(low, high, spacing, strict=True)]
    body = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ rotation
    labels = inside(body / half).astype(np.uint8)
    labels[((body - center) ** 2).sum(axis=-1) <= radius**2] = 2
    labels = np.pad(labels, ((0, 0), (0, 0), (labels.shape[2], 0)))  # all of it on the left, or a corner might be a right kidney
    reading = read_out(labels, spacing)
    (tumor,) = reading.tumors
    parenchyma_ml = reading.kidneys[1].parenchyma_ml
    directions = rng.normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    ball = directions * radius * rng.uniform(size=(len(directions), 1)) ** (1 / 3)
    touching = 4 * np.pi * radius**2 * inside((center + directions * radius) / half).mean()
    within = float(inside((center + ball) / half).mean())
    volume_ml = 4 / 3 * np.pi * radius**3 / 1000
    whole_ml = (4 / 3 * np.pi if name == "ellipsoid" else 8) * np.prod(half) / 1000
    off = np.abs(axes[0] - middle[0]).min()  # of the slice that is nearest to the ball's center
    assert tumor.exophytic_share is not None
    assert tumor.contact_mm2 is not None
    assert parenchyma_ml is not None
    return {
        "volume_percent": 100 * (tumor.integrated_ml / volume_ml - 1),
        "counted_percent": 100 * (tumor.volume_ml / volume_ml - 1),
        "parenchyma_percent": 100 * (parenchyma_ml / (whole_ml - within * volume_ml) - 1),
        "diameter_pixels": (tumor.axial_mm - 2 * (radius**2 - off**2) ** 0.5) / spacing[1],
        "contact_percent": 100 * (tumor.contact_mm2 / touching - 1),
        "exophytic": tumor.exophytic_share - (1 - within),
    }


def one_place(spacing: Spacing, left: bool, face: str, height: float, degrees: float) -> dict[str, Any]:
    """Measure a ball of 8 mm in a notched ellipsoid.

    Returns what of side, face and L is wrong, and the errors of its distances, mm.
    """
    radius = 8.0
    center = np.array([height, FACES[face], 8.0])
    (tumor,) = read_out(placed(left, (height, FACES[face], 8.0), radius, spacing, degrees), spacing).tumors
    found, true = (tumor.side, tumor.face, tumor.renal.L.points), ("left" if left else "right", face, HEIGHTS[height])
    surface = cKDTree(sphere(200_000) * ELLIPSOID)
    ball = center + np.concatenate([sphere(4000) * radius * share for share in np.linspace(0, 1, 17)])
    own = ball[in_ellipsoid(ball / ELLIPSOID)]
    depths = surface.query(own)[0]
    to_notch = np.maximum(np.abs(center) - (NOTCH[0], NOTCH[1], 0), 0)
    to_notch[2] = center[2] - NOTCH[2]
    true_mm = {
        "depth_mm": float(depths.max(initial=0.0)),  # of what lies outside none
        "outline_mm": float(depths.min()) if len(own) == len(ball) else 0.0,
        "sinus_mm": max(0.0, float(np.linalg.norm(to_notch)) - radius),
    }
    errors = {name: abs((getattr(tumor, name) or 0.0) - value) for name, value in true_mm.items()}
    return {"wrong": "" if found == true else f"{spacing}: found {found}, placed {true}", "errors_mm": errors}


def placed(left: bool, offset: Spacing, radius: float, spacing: Spacing, degrees: float) -> np.ndarray:
    """Draw notched kidneys turned about the long axis, one with a ball at `offset` (z, y, outward) mm."""
    axes = [np.arange(-h, h + step, step) for h, step in zip((75, 60, 125), spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    labels = np.zeros(z.shape, np.uint8)
    for side in (-1, 1):
        angle = np.deg2rad(degrees) * side
        out = side * (x - FROM_MIDDLE * side)
        u, v = np.cos(angle) * out - np.sin(angle) * y, np.sin(angle) * out + np.cos(angle) * y
        hollow = (np.abs(z) < NOTCH[0]) & (np.abs(v) < NOTCH[1]) & (u < NOTCH[2])
        labels[(in_ellipsoid(np.stack([z, v, u], axis=-1) / ELLIPSOID)) & ~hollow] = 1
        if (side == 1) == left:
            labels[(z - offset[0]) ** 2 + (v - offset[1]) ** 2 + (u - offset[2]) ** 2 <= radius**2] = 2
    return labels


def in_axis_order(labels: np.ndarray, spacing: Spacing, order: int) -> dict[str, Any]:
    """Write a label map (z, y, x) in one of the 48 axis orders, read it, and measure it."""
    axes, signs = list(product(permutations(range(3)), product((1.0, -1.0), repeat=3)))[order]
    direction = np.zeros((3, 3))
    direction[list(axes), range(3)] = signs
    size, step = labels.shape[::-1], spacing[::-1]  # (x, y, z)
    a, b, c = axes
    grid = Grid((size[a], size[b], size[c]), (step[a], step[b], step[c]), (0.0, 0.0, 0.0), tuple(direction.ravel().tolist()))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "case.nii.gz"
        write_labels(path, labels, grid)
        volume = read_labels(path, allowed=range(4))
    return read_out(volume.array, volume.spacing).to_dict()


def most_moved() -> dict[str, float]:
    """Measure how a number changes at most, in percent.

    Of a map turned by 30 degrees in its plane, and resampled to 5 mm.
    """
    spacing = (1.0, 0.8, 0.8)
    labels = placed(True, (10.0, -18.0, 12.0), 14.0, spacing, 10.0)
    before = dict(numbers(read_out(labels, spacing)))
    others = {
        "rotated_percent": (turned(labels, spacing, 30.0), spacing),
        "resampled_percent": (sliced(labels, spacing), (THICK_MM, *spacing[1:])),
    }
    # A share is a percentage itself; all else is taken relative to its value.
    scale = {name: 1.0 if name.endswith("_share") else max(abs(value), 1e-9) for name, value in before.items()}
    most = {}
    for what, other in others.items():
        after = dict(numbers(read_out(*other)))
        changes = {name: 100 * abs(after[name] - value) / scale[name] for name, value in before.items()}
        told = [f"{name} {changes[name]:.1f}" for name in sorted(changes, key=lambda key: -changes[key])[:4]]
        print(f"{what}: {', '.join(told)}")
        most[what] = max(changes.values())
    return most


def numbers(reading: CaseReading) -> list[tuple[str, float]]:
    """Collect the continuous values of a case with one tumor."""
    tumor, left = reading.tumors[0], reading.kidneys[1]
    names = ("integrated_ml", "axial_mm", "short_mm", "diameter_3d_mm", "sphericity", "exophytic_share", "contact_mm2", "c_index")
    found = [(name, getattr(tumor, name)) for name in (*names, "depth_mm", "parenchyma_5mm_ml", "parenchyma_10mm_ml")]
    return [*found, ("parenchyma_ml", left.parenchyma_ml), ("length_mm", left.length_mm)]
