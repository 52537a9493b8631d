"""A real CT with drawn kidneys: HU, labels, where nothing may be painted, and its contrast."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from kits.core.labels import KIDNEY
from kits.painter.fields import Field, Lattice, Triple, signed_distance
from kits.painter.kidney import close_mask
from kits.painter.phases import PHASES, Contrast, draw_contrast

# Distances to bone and into organs need no finer lattice.
ROUGH_MM = (3.0, 3.0, 3.0)
BONE_HU, AIR_HU = 220.0, -350.0
# Of the kidneys: as far as a tumor may reach.
AROUND_MM = 70.0
# Farther below its surface an organ or a muscle does not give way to a tumor of the kidney.
DEEP_MM = 5.0
# The skin, which is no muscle, and the wall of muscle that a tumor of the kidney does not pass.
SKIN_MM, WALL_MM = 7.0, 6.0
# Parenchyma of less is not enhanced.
PLAIN_HU = 62.0
# Between the brighter and the darker parts of a kidney that is cortex and medulla.
STRIPED_HU = 55.0


@dataclass
class RealScan:
    """A scan that is being painted on.

    Attributes:
        hu: (z, y, x) float32, whole numbers where nothing has been painted.
        labels: uint8 of that shape.
        spacing: (z, y, x) mm.
        smooth: `hu` as it was read, smoothed in the plane by about a millimeter.
        rough: lattice of the fields below.
        hull: signed distance (mm) to the kidneys with their sinus filled, negative inside.
        firm: distance (mm) to where no lesion belongs, 0 there: bone, lung and air around the body, organs and muscles inside.
    """

    hu: Field
    labels: NDArray[np.uint8]
    spacing: Triple
    smooth: Field = field(init=False)
    rough: Lattice = field(init=False)
    hull: Field = field(init=False)
    firm: Field = field(init=False)

    def __post_init__(self) -> None:
        """Measure what the lesions need to know of the anatomy; there is a kidney in every scan."""
        sigma = [0.0, 1.0 / self.spacing[1], 1.0 / self.spacing[2]]
        self.smooth = ndimage.gaussian_filter(self.hu, sigma)
        steps = [max(1, round(wanted / size)) for wanted, size in zip(ROUGH_MM, self.spacing, strict=True)]
        z, y, x = (
            slice(max(0, part.start - round(AROUND_MM / size)), part.stop + round(AROUND_MM / size), step)
            for part, size, step in zip(
                ndimage.find_objects((self.labels > 0).astype(np.uint8))[0], self.spacing, steps, strict=True
            )
        )
        window = (z, y, x)
        self.rough = Lattice.of_voxels(self.hu.shape, self.spacing).part(window)
        hu, labels, step = self.smooth[window], self.labels[window], self.rough.step
        self.hull = signed_distance(close_mask(labels > 0, step), step)
        bright = ndimage.binary_closing((hu > BONE_HU) & (self.hull > 4), iterations=2)
        air = ndimage.binary_opening(hu < AIR_HU, iterations=3)
        soft = ndimage.gaussian_filter(hu, 0.8)  # noise makes no holes in an organ
        tissue = ndimage.binary_opening((soft > 10) & (soft < BONE_HU) & (self.hull > 2))
        firm = bright | air | ~within_wall(hu, step) | (ndimage.distance_transform_edt(tissue, sampling=step) > DEEP_MM)
        self.firm = np.maximum(signed_distance(firm, step), 0)

    @property
    def extent(self) -> Triple:
        """Middle of the last voxel (z, y, x) in mm."""
        z, y, x = ((n - 1) * size for n, size in zip(self.hu.shape, self.spacing, strict=True))
        return z, y, x


def within_wall(hu: Field, step: Triple) -> NDArray[np.bool_]:
    """Mark the room (z, y, x) well within each slice's hull of muscle, bone and organs."""
    body = ndimage.binary_opening(hu > AIR_HU, iterations=2)
    numbered, count = ndimage.label(body)
    if count > 1:  # arms and the table
        body = numbered == np.bincount(numbered.ravel())[1:].argmax() + 1
    body = ndimage.binary_fill_holes(body)
    firm = body & (hu > 0) & (ndimage.distance_transform_edt(body, sampling=step) > SKIN_MM)
    room = np.zeros_like(body)
    points = np.stack(np.meshgrid(*(np.arange(n) * size for n, size in zip(hu.shape[1:], step[1:], strict=True)), indexing="ij"))
    for z in range(len(hu)):
        places = points[:, firm[z]].T
        if len(places) > 2 and np.ptp(places, axis=0).min() > 2 * WALL_MM:
            faces = ConvexHull(places).equations
            room[z] = np.all(np.tensordot(faces[:, :2], points, 1) + faces[:, 2, None, None] < -WALL_MM, axis=0)
    return room


def measure_contrast(scan: RealScan, rng: np.random.Generator) -> Contrast:
    """Return the phase and the kidneys' HU of a scan; what cannot be measured is drawn for that phase."""
    parenchyma = scan.smooth[ndimage.binary_erosion(scan.labels == KIDNEY, np.ones((1, 3, 3)), iterations=2)]
    if not len(parenchyma):
        parenchyma = scan.smooth[scan.labels == KIDNEY]
    dark, middle, bright = (float(value) for value in np.percentile(parenchyma, [20, 50, 80]))
    phase = "none" if middle < PLAIN_HU else "corticomedullary" if bright - dark > STRIPED_HU else "portal"
    contrast = draw_contrast(rng, {name: float(name == phase) for name in PHASES})
    cortex, medulla = (middle, middle) if phase == "none" else (bright, dark)
    return replace(contrast, hu={**contrast.hu, "cortex": cortex, "medulla": medulla})
