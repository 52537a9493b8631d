"""The inside of the kidney on a millimeter lattice: cortex, medulla, sinus, calyces, cysts, tumors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits.painter.fields import Field, Lattice, Triple, ellipsoid, signed_distance, smooth_noise, tubes
from kits.painter.phases import Contrast

MARGIN_MM = 8.0
# Vessels and pelvis leave the sinus through a gap; closing the kidney by this much fills it.
CLOSING_MM = 9.0


@dataclass(frozen=True)
class Cyst:
    """A ball of fluid inside label 1: center (z, y, x) mm in the volume, radius mm."""

    center: Triple
    radius: float


@dataclass(frozen=True)
class Interior:
    """HU fields around one kidney on its lattice, and how far (0 to 1) a point lies in its sinus."""

    lattice: Lattice
    kidney: Field
    tumor: Field
    sinus: Field
    in_sinus: Field


def paint_interior(
    rng: np.random.Generator, labels: NDArray[np.uint8], lattice: Lattice, contrast: Contrast, fat: float, cysts: list[Cyst]
) -> Interior:
    """Paint HU of kidney, tumor and sinus for the piece of a label map on `lattice` (z, y, x mm)."""
    step = lattice.step
    inside = labels > 0
    hull = close_mask(inside, step)
    depth = np.maximum(-signed_distance(hull, step), 0)
    fine = smooth_noise(rng, lattice, (4, 3, 3))
    medium = smooth_noise(rng, lattice, (11, 9, 9))
    vessel_a, vessel_b = smooth_noise(rng, lattice, (14, 11, 11)), smooth_noise(rng, lattice, (14, 11, 11))
    sinus_mask = hull & ~inside
    nearness = ndimage.gaussian_filter(sinus_mask.astype(np.float32), [6 / size for size in step])

    vessels = tubes(vessel_a, vessel_b, rng.uniform(0.2, 0.5))
    # Now and then the calyces are wide (hydronephrosis).
    collecting = np.clip((medium - (rng.uniform(-0.8, 0) if rng.random() < 0.08 else rng.uniform(0.2, 1.4))) / 0.4, 0, 1)
    kidney = parenchyma(rng, depth, fine, medium, smooth_noise(rng, lattice, (9, 7.5, 7.5)), contrast)
    deep = np.clip((nearness - 0.12) / 0.1, 0, 1) * np.clip((depth - 8) / 4, 0, 1)
    center = contrast["medulla"] + vessels * (contrast["renal_vein"] - contrast["medulla"])
    center = center + collecting * (contrast["collecting"] - center)
    kidney = kidney + deep * rng.uniform(0.5, 1) * (center - kidney)
    kidney = kidney + rng.uniform(2, 7) * fine

    sinus = fat + rng.uniform(10, 30) + 10 * fine
    sinus = sinus + vessels * (float(rng.choice([contrast["renal_vein"], contrast["aorta"]])) - sinus)
    sinus = sinus + 0.7 * collecting * (contrast["collecting"] - sinus)
    if rng.random() < 0.1:
        stones = np.clip((fine - 2.0) / 0.3, 0, 1) * np.clip((depth - 10) / 3, 0, 1)
        kidney = kidney + stones * (rng.uniform(200, 1200) - kidney)
    for cyst in cysts:
        kidney = paint_cyst(rng, kidney, lattice, cyst)
    tumor = paint_tumors(rng, labels == 2, lattice, contrast, fine)
    in_sinus = ndimage.gaussian_filter(hull.astype(np.float32), [1.0 / size for size in step])
    return Interior(lattice, kidney, tumor, sinus, np.clip(3 * in_sinus - 1.5, 0, 1))


def close_mask(inside: NDArray[np.bool_], step: Triple) -> NDArray[np.bool_]:
    """Close a mask morphologically by `CLOSING_MM` through two distance transforms."""
    if not inside.any():
        return inside
    padded = np.pad(inside, [(int(np.ceil(CLOSING_MM / size)) + 1,) * 2 for size in step])
    grown = ndimage.distance_transform_edt(~padded, sampling=step) <= CLOSING_MM
    hull = ndimage.distance_transform_edt(grown, sampling=step) > CLOSING_MM
    crop = tuple(slice(int(np.ceil(CLOSING_MM / size)) + 1, -int(np.ceil(CLOSING_MM / size)) - 1) for size in step)
    return hull[crop] | inside


def parenchyma(rng: np.random.Generator, depth: Field, fine: Field, medium: Field, pyramids: Field, contrast: Contrast) -> Field:
    """Paint bright cortex of varied thickness, medullary pyramids, and columns between them."""
    thickness = rng.uniform(2.5, 8.5) * (1 + 0.18 * medium)
    cortex = np.clip((thickness - depth) / 1.6 + 0.5, 0, 1)
    column = np.clip((pyramids - rng.uniform(-0.1, 0.9)) / 0.35, 0, 1)
    share = np.maximum(cortex, column)
    gain = float(rng.normal(1, 0.05))
    return gain * (contrast["medulla"] + share * (contrast["cortex"] - contrast["medulla"])) + 2 * medium


def paint_cyst(rng: np.random.Generator, kidney: Field, lattice: Lattice, cyst: Cyst) -> Field:
    """Paint simple cysts of water, now and then a hyperdense one; walls are below the resolution."""
    z, y, x = lattice.points
    radii = (cyst.radius, cyst.radius * rng.uniform(0.85, 1.1), cyst.radius * rng.uniform(0.85, 1.1))
    distance = ellipsoid(z - cyst.center[0], y - cyst.center[1], x - cyst.center[2], radii)
    hu = rng.uniform(-4, 22) if rng.random() < 0.85 else rng.uniform(45, 95)
    return kidney + np.clip(0.5 - distance / 1.2, 0, 1) * (hu - kidney)


def paint_tumors(rng: np.random.Generator, mask: NDArray[np.bool_], lattice: Lattice, contrast: Contrast, fine: Field) -> Field:
    """Paint each connected tumor by its own draw of kind, meant where the mask is set."""
    field = np.full(mask.shape, contrast["medulla"], np.float32)
    if not mask.any():
        return field
    numbered, count = ndimage.label(mask)
    depth = np.maximum(-signed_distance(mask, lattice.step), 0)
    sizes = np.bincount(numbered.ravel())
    nearest = numbered
    if count > 1:
        index = ndimage.distance_transform_edt(~mask, sampling=lattice.step, return_distances=False, return_indices=True)
        nearest = numbered[tuple(index)]
    for number in np.argsort(sizes[1:])[::-1][:4] + 1:
        value = one_tumor(rng, np.where(numbered == number, depth, 0), lattice, contrast, fine)
        np.copyto(field, value, where=(nearest == number))
    return field


def one_tumor(rng: np.random.Generator, depth: Field, lattice: Lattice, contrast: Contrast, fine: Field) -> Field:
    """Paint one tumor by kind from its depth (mm): texture, necrosis, scar, rim and calcification."""
    radius = max(float(depth.max()), 3.0)
    kind = rng.choice(
        ["clear", "papillary", "chromophobe", "oncocytoma", "cystic", "fatty"], p=[0.5, 0.16, 0.12, 0.09, 0.09, 0.04]
    )
    cell = float(np.clip(radius * rng.uniform(0.25, 0.7), 3.5, 18))
    lumps = smooth_noise(rng, lattice, (cell, cell, cell))
    enhanced = contrast.phase != "none"
    cortex = contrast["cortex"]
    base = {
        "clear": rng.uniform(0.4, 0.95) * cortex,
        "papillary": rng.uniform(40, 85),
        "chromophobe": rng.uniform(60, 115),
        "oncocytoma": rng.uniform(0.55, 0.95) * cortex,
        "cystic": rng.uniform(5, 28),
        "fatty": rng.uniform(40, 90),
    }[str(kind)]
    if not enhanced:
        base = rng.uniform(8, 25) if kind == "cystic" else rng.uniform(22, 48)
    rough = {"clear": rng.uniform(8, 34), "fatty": 25.0, "cystic": 3.0}.get(str(kind), rng.uniform(2, 10))
    rough = rough if enhanced else 0.25 * rough
    value = base + rough * lumps + 0.35 * rough * fine + 3 * fine

    share = depth / radius
    if kind == "clear" and rng.random() < np.clip(radius / 22, 0.25, 0.9):
        dead = np.clip((share + 0.45 * lumps - rng.uniform(0.35, 0.95)) / 0.18, 0, 1)
        value = value + dead * (rng.uniform(8, 40) - value)
    if kind == "oncocytoma" and radius > 9:
        scar = np.clip((share + 0.25 * lumps - 0.85) / 0.1, 0, 1)
        value = value + scar * (rng.uniform(25, 60) - value)
    if kind == "cystic":
        septa = np.clip(1 - abs(lumps) / rng.uniform(0.08, 0.25), 0, 1) * (rng.random() < 0.7)
        wall = np.clip((rng.uniform(1, 3.5) - depth) / 1.2, 0, 1)
        value = value + np.maximum(0.8 * septa, wall) * (base + rng.uniform(25, 90) * (1 if enhanced else 0.25) - value)
    if kind == "fatty":
        value = value - rng.uniform(60, 140) * np.clip((lumps - 0.3) / 0.4, 0, 1)
    if rng.random() < 0.25:
        value = value + np.clip((2.0 - depth) / 1.5, 0, 1) * rng.normal(0, 30)
    if rng.random() < 0.08:
        value = value + np.clip((lumps - 1.7) / 0.2, 0, 1) * rng.uniform(150, 600)
    return value.astype(np.float32)
