"""Another contrast phase for a real CT: kidneys, organs, vessels and noise change, bones stay."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kits.core.labels import KIDNEY
from kits.painter.fields import Field, Lattice
from kits.painter.kidney import MARGIN_MM, paint_interior
from kits.painter.painting import DETAIL_MM, Layer, finest, sample
from kits.painter.phases import Contrast
from kits.painter.real_scan import RealScan

# What shows in the picture by its HU alone.
TISSUES = ("muscle", "bowel_wall", "pancreas", "liver", "spleen", "portal_vein", "aorta")
TABLE_HU = np.arange(-60, 321, dtype=np.float32)
# Smoothing of the curve of HU: two tissues of nearly one HU are not torn apart.
CURVE_HU = 13.0
BRIGHT_HU = 200.0
# Kidney tissue is replaced down to this size, mm; what is finer is the scan's own.
GRAINED_MM = 3.0
# Urine in the sinus, between its fat and its vessels.
WATER_HU = (-10.0, 45.0)


def rephase(rng: np.random.Generator, scan: RealScan, now: Contrast, then: Contrast) -> None:
    """Change `hu` of a scan from the contrast that it has to another one.

    Kidneys are painted anew at their place with cortex, medulla and vessels of the new phase. Everything else has only its HU to
    tell it by: it follows a curve from the old HU of the organs to their new ones.
    """
    core = (scan.labels == KIDNEY).astype(np.float32)
    edge = [0.0, 0.7 / scan.spacing[1], 0.7 / scan.spacing[2]]
    kidney = ndimage.gaussian_filter(core, edge)
    moved = np.interp(scan.smooth, TABLE_HU, curve(now, then) - TABLE_HU, left=0, right=0).astype(np.float32)
    scan.hu += moved * (1 - kidney) * (1 - bright(scan, kidney))
    change_pelvis(scan, now, then)
    numbered, _ = ndimage.label(scan.labels > 0)
    for where in ndimage.find_objects(numbered):
        low = [max(part.start * size - MARGIN_MM, 0.0) for part, size in zip(where, scan.spacing, strict=True)]
        high = [min(part.stop * size + MARGIN_MM, end) for part, size, end in zip(where, scan.spacing, scan.extent, strict=True)]
        lattice = Lattice.cover((low[0], low[1], low[2]), (high[0], high[1], high[2]), finest(DETAIL_MM, scan.spacing))
        interior = paint_interior(rng, sample(scan.labels, scan.spacing, lattice), lattice, then, -100.0, [])
        layer = Layer.of(lattice, scan.spacing, scan.hu.shape)
        wanted = layer.enlarge(interior.kidney, layer.box[0].start, layer.box[0].stop)
        inside, hu = core[layer.box], scan.hu[layer.box]
        around = [0.0, GRAINED_MM / scan.spacing[1], GRAINED_MM / scan.spacing[2]]
        share = ndimage.gaussian_filter(inside, around)
        mean = ndimage.gaussian_filter(hu * inside, around) / np.maximum(share, 1e-3)
        # Each component has its own turn: boxes of two may overlap.
        mine = kidney[layer.box] * ndimage.maximum_filter(numbered[layer.box] == numbered[where].max(), (1, 5, 5))
        hu += np.where(share > 0.02, mine * (wanted - mean), 0)
    np.rint(scan.hu, out=scan.hu)


def change_pelvis(scan: RealScan, now: Contrast, then: Contrast) -> None:
    """Give calyces and pelvis the HU of the new phase's urine.

    They are what outshines the kidney now; where the agent is to fill them, what is water in the sinus too.
    """
    box = [
        slice(round(float(axis[0]) / size), round(float(axis[-1]) / size) + 1)
        for axis, size in zip(scan.rough.axes, scan.spacing, strict=True)
    ]
    where = (box[0], box[1], box[2])
    hull = Layer.of(scan.rough, scan.spacing, scan.hu.shape).enlarge(scan.hull, where[0].start, where[0].stop)
    smooth = scan.smooth[where]
    full = np.clip((smooth - now["cortex"] - 30) / 40, 0, 1) * (hull < 4)
    if then.phase == "excretory":
        water = (smooth > WATER_HU[0]) & (smooth < WATER_HU[1]) & (hull < 2) & (scan.labels[where] == 0)
        # Where fat meets parenchyma a rim of a pixel or two has the HU of water, too.
        water = ndimage.binary_opening(water, np.ones((1, 3, 3)))
        full = np.maximum(full, ndimage.gaussian_filter(water.astype(np.float32), [0.0, 0.7, 0.7]))
    scan.hu[where] += full * (then["collecting"] - smooth)


def curve(now: Contrast, then: Contrast) -> Field:
    """Return new HU of `TABLE_HU`: fat, water and bone stay, the organs move.

    Without contrast they are hard to tell apart.
    """
    if now.phase == "none":
        flesh = 0.5 * (then["muscle"] + then["liver"])
        pairs = [(28.0, then["muscle"] - 15), (50.0, flesh), (70.0, max(then["liver"], flesh) + 5)]
    else:
        pairs = sorted((now[tissue], then[tissue]) for tissue in TISSUES)
    fixed = [(-60.0, -60.0), (-20.0, -20.0), (8.0, 8.0)]
    old, new = zip(*fixed, *pairs, (310.0, 310.0), strict=True)
    table = np.interp(TABLE_HU, old, new)
    smooth = ndimage.gaussian_filter1d(table, CURVE_HU, mode="nearest")
    return (TABLE_HU + (smooth - TABLE_HU) * np.clip((310 - TABLE_HU) / 40, 0, 1)).astype(np.float32)


def bright(scan: RealScan, kidney: Field) -> Field:
    """Weigh how far (0 to 1) a voxel is bone with its marrow, metal or contrast in bowel."""
    seen = (scan.smooth[:, ::2, ::2] > BRIGHT_HU) & (kidney[:, ::2, ::2] < 0.02)
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = True
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(seen, plane, iterations=2), plane)
    filled = ndimage.binary_dilation(filled, plane)  # the edges of a bone have any HU
    whole = np.repeat(np.repeat(filled, 2, axis=1), 2, axis=2)[:, : seen.shape[1] * 2, : seen.shape[2] * 2]
    whole = whole[:, : scan.hu.shape[1], : scan.hu.shape[2]].astype(np.float32)
    return ndimage.gaussian_filter(whole, [0.0, 1.0 / scan.spacing[1], 1.0 / scan.spacing[2]])
