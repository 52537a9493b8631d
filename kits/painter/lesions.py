"""Tumors and cysts set into the kidneys of a real CT, in its noise; they push neighbors aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kits.core.labels import TUMOR
from kits.painter.fields import Field, Lattice, Slices, Triple, resample, smooth_noise
from kits.painter.grain import Grain
from kits.painter.kidney import one_tumor
from kits.painter.painting import DETAIL_MM, Layer, finest
from kits.painter.phases import Contrast
from kits.painter.real_scan import RealScan
from kits.painter.shapes import lumpy_ball

# Places that are tried for a lesion before a smaller one is.
TRIES = 60
# Of a lesion: so much may reach over firm ground, where it is cut flat; so much lies in the kidney at least.
ASTRAY, ROOTED = 0.08, 0.15
SMALLEST_MM = 3.0
# Tissue that moves less than this stays as it is.
STILL_MM = 0.15


@dataclass(frozen=True)
class Site:
    """The place of a new lesion: center (z, y, x) mm, radius mm."""

    center: Triple
    radius: float


def find_site(rng: np.random.Generator, scan: RealScan, radius: float, taken: list[Site]) -> Site | None:
    """Find a place at or under a kidney's surface with room for a ball of this or a smaller radius (mm).

    Args:
        taken: where other lesions grow already; these are touched, but not swallowed.
    """
    surface = np.argwhere((scan.hull < 0) & (scan.hull > -1.01 * max(scan.rough.step)))
    slope: list[Field] = list(np.gradient(scan.hull, *scan.rough.step))
    while radius >= SMALLEST_MM and len(surface):
        for index in surface[rng.integers(len(surface), size=TRIES)]:
            outwards = np.array([axis[tuple(index)] for axis in slope])
            outwards /= np.linalg.norm(outwards) + 1e-6
            # From buried to hanging on by a fifth; small ones are seen in any depth.
            out = rng.uniform(-1.0, 0.6) * radius - rng.uniform(0, 8) * (radius < 12)
            point = np.array([axis[k] for axis, k in zip(scan.rough.axes, index, strict=True)])
            z, y, x = (float(value) for value in point + out * outwards)
            site = Site((z, y, x), radius)
            apart = (np.linalg.norm(np.subtract(site.center, one.center)) > radius + 0.9 * one.radius for one in taken)
            if all(apart) and fits(scan, site):
                return site
        radius *= 0.85
    return None


def fits(scan: RealScan, site: Site) -> bool:
    """Tell whether a ball there is rooted in a kidney and clear of firm ground and of the scan's ends."""
    center, radius = site.center, site.radius
    box = scan.rough.box(center, (radius, radius, radius))
    z, y, x = np.meshgrid(*(axis[part] - c for axis, part, c in zip(scan.rough.axes, box, center, strict=True)), indexing="ij")
    ball = z * z + y * y + x * x < radius * radius
    count = int(ball.sum())
    whole = 4.19 * radius**3 / float(np.prod(scan.rough.step))
    if count < 0.7 * whole or not count:
        return False
    astray, rooted = (scan.firm[box][ball] == 0).mean(), (scan.hull[box][ball] < 0).mean()
    return bool(astray <= ASTRAY and rooted >= ROOTED)


def set_lesion(
    rng: np.random.Generator, scan: RealScan, site: Site, contrast: Contrast, grain: Grain, *, fluid: bool, label: int
) -> None:
    """Grow one tumor, or a cyst (`fluid`), at a site, in `hu` and `labels` of the scan near it alone."""
    push = float(rng.uniform(0.15, 0.5)) * site.radius
    reach = 1.35 * site.radius + 4 * push + 6
    lattice = around(scan, site.center, reach)
    firm = resample(scan.firm, scan.rough, lattice)
    lumps = float(0.03 if fluid else rng.uniform(0.04, 0.17))
    distance = np.maximum(lumpy_ball(rng, lattice, site.center, site.radius, lumps), 2.0 - firm)
    if fluid:  # water, and one in eight hyperdense
        hu = rng.uniform(0, 20) if rng.random() < 7 / 8 else rng.uniform(45, 90)
        value = (hu + 1.5 * smooth_noise(rng, lattice, (6, 5, 5))).astype(np.float32)
    else:  # by its kind, as in the phantoms
        value = one_tumor(rng, np.maximum(-distance, 0), lattice, contrast, smooth_noise(rng, lattice, (4, 3, 3)))
    layer = Layer.of(lattice, scan.spacing, scan.hu.shape)
    low, high = layer.box[0].start, layer.box[0].stop
    displace(scan, layer.box, layer.enlarge(distance, low, high), layer.enlarge(firm, low, high), push)
    cover = blend(rng, scan, lattice, distance, value, grain)
    scan.labels[layer.box][cover >= 0.5] = label


def blend(rng: np.random.Generator, scan: RealScan, lattice: Lattice, distance: Field, value: Field, grain: Grain) -> Field:
    """Mix HU that are painted on a lattice into `hu` of the scan, where `distance` (mm) is negative.

    Returns:
        How far (0 to 1) each voxel in the lattice's box is covered.
    """
    edge = float(max(rng.uniform(0.9, 1.6), scan.spacing[2]))
    layer = Layer.of(lattice, scan.spacing, scan.hu.shape)
    low, high = layer.box[0].start, layer.box[0].stop
    sigma = [0.3 * scan.spacing[0] / lattice.step[0], 0, 0]  # a slice is the mean over its thickness
    cover = layer.enlarge(ndimage.gaussian_filter(np.clip(0.5 - distance / edge, 0, 1), sigma), low, high)
    cover = np.where(cover < 0.01, 0, np.clip(cover, 0, 1)).astype(np.float32)
    painted = layer.enlarge(ndimage.gaussian_filter(value, sigma), low, high)
    view = scan.hu[layer.box]
    # The noise that mixing takes away is put back, so that the edge is as noisy as the rest.
    noise = grain.draw(rng, view.shape) * np.sqrt(1 - (1 - cover) ** 2)
    np.copyto(view, np.rint(view + cover * (painted - view) + noise), where=cover > 0)
    return cover


def around(scan: RealScan, center: Triple, reach: float) -> Lattice:
    """Return points of about a millimeter within `reach` (mm) of a center, clipped to the scan."""
    low = [max(c - reach, 0.0) for c in center]
    high = [min(c + reach, end) for c, end in zip(center, scan.extent, strict=True)]
    return Lattice.cover((low[0], low[1], low[2]), (high[0], high[1], high[2]), finest(DETAIL_MM, scan.spacing))


def displace(scan: RealScan, box: Slices, distance: Field, firm: Field, push: float) -> None:
    """Move what a lesion takes the room of outwards in its slice, but not firm ground.

    Less and less with distance (mm). Splines, not lines between pixels: these would smooth the noise and show where tissue was
    moved.
    """
    # Where only the tip of the lesion is in a slice, less moves.
    tip = np.sqrt((distance < 0).sum(axis=(1, 2), keepdims=True) * scan.spacing[1] * scan.spacing[2] / np.pi)
    moved = np.minimum(push, 0.4 * tip) * np.exp(-np.maximum(distance, 0) / (1.6 * push + 3)) * np.clip((firm - 1) / 6, 0, 1)
    down, across = np.gradient(distance, scan.spacing[1], axis=1), np.gradient(distance, scan.spacing[2], axis=2)
    size = np.sqrt(down**2 + across**2) + 1e-3
    view, labels = scan.hu[box], scan.labels[box]
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in view.shape[1:]), indexing="ij", sparse=True)
    for z in np.flatnonzero((distance < 0).any(axis=(1, 2))):
        rows = y - moved[z] * down[z] / size[z] / scan.spacing[1]
        columns = x - moved[z] * across[z] / size[z] / scan.spacing[2]
        # Deep inside the lesion everything is painted over.
        where = (moved[z] > STILL_MM) & (distance[z] > -3)
        points = np.stack([rows[where], columns[where]])
        hu = ndimage.map_coordinates(view[z], points, order=3, mode="nearest")
        # Splines overshoot beside metal and air.
        view[z][where] = np.rint(np.clip(hu, float(view[z].min()), float(view[z].max())))
        labels[z][where] = ndimage.map_coordinates(labels[z], points, order=0, mode="nearest")


def paint_lesions(
    rng: np.random.Generator, scan: RealScan, contrast: Contrast, grain: Grain, tumors: list[float], cysts: list[float], cyst: int
) -> tuple[int, int]:
    """Set tumors and cysts of these radii (mm) into the kidneys, the largest first.

    Args:
        cyst: the label of cysts.

    Returns:
        For how many tumors and for how many cysts there was room.
    """
    sites: list[Site] = []
    counts = []
    for radii, fluid, label in ((tumors, False, TUMOR), (cysts, True, cyst)):
        before = len(sites)
        for radius in sorted(radii, reverse=True):
            if (site := find_site(rng, scan, radius, sites)) is not None:
                set_lesion(rng, scan, site, contrast, grain, fluid=fluid, label=label)
                sites.append(site)
        counts.append(len(sites) - before)
    return counts[0], counts[1]
