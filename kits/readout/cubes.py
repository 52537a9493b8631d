"""A kidney on cubes: shape is not measured on slices 0.5 to 5 mm apart.

And pixels of 0.4 to 1 mm. Masks are interpolated by their signed distance (shape-based interpolation, Raya and Udupa 1990, IEEE
TMI 9:32), so that a ball cut into thick slices becomes round again.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from kits.core.labels import BACKGROUND, CYST, KIDNEY, TUMOR
from kits.readout.kidneys import KidneyRegion
from kits.volume import Spacing

# Cubes of 1 mm, larger ones where a kidney with its tumors would take more of them than this.
FINEST_MM, MOST_CUBES = 1.0, 4_000_000
# Empty cubes around the kidney, so that every surface is closed and an opening of 2.5 mm has room.
MARGIN_MM = 4.0
# Where a tumor's surface is the kidney's too, both distances are the same but for rounding: no film of kidney may cover it.
TIE_MM = 0.02


@dataclass(frozen=True)
class Cubes:
    """A kidney on cubes.

    Attributes:
        labels: uint8 (z, y, x): 1 kidney, 2 tumor, 3 cyst.
        inside: signed distance of kidney, tumors and cysts together, mm, positive inside.
        solid: the same of kidney and cysts without the tumors.
        tumors: each tumor's signed distance in mm, positive inside, and where it lies in `labels`.
        step: edge of a cube, mm.
        origin: (z, y, x) mm of the first cube's center in the label map, whose first voxel's center is 0.
    """

    labels: np.ndarray
    inside: np.ndarray
    solid: np.ndarray
    tumors: list[tuple[np.ndarray, tuple[slice, slice, slice]]]
    step: float
    origin: tuple[float, float, float]

    @property
    def kidney(self) -> np.ndarray:
        """Mask parenchyma and cysts."""
        return (self.labels > BACKGROUND) & (self.labels != TUMOR)

    def tumor(self, index: int) -> np.ndarray:
        """Mask one tumor, counted from 0."""
        mask = np.zeros(self.labels.shape, bool)
        distance, place = self.tumors[index]
        mask[place] = (distance > -TIE_MM) & (self.labels[place] == TUMOR)
        return mask


def cubes_of(region: KidneyRegion, spacing: Spacing) -> Cubes:
    """Resample a kidney (z, y, x) of `spacing` mm to cubes."""
    shape = region.labels.shape
    extent = [n * s + 2 * MARGIN_MM for n, s in zip(shape, spacing, strict=True)]
    step = max(FINEST_MM, (prod(extent) / MOST_CUBES) ** (1 / 3))
    counts = [ceil(length / step) for length in extent]
    first = [w.start * s for w, s in zip(region.window, spacing, strict=True)]
    # Centered on the window, so that a mirrored label map gives mirrored cubes.
    offset = [((n - 1) * s - (count - 1) * step) / 2 for n, s, count in zip(shape, spacing, counts, strict=True)]

    def on_cubes(array: np.ndarray, order: int, start: list[float], sizes: list[int], outside: float) -> np.ndarray:
        places = [(begin / s, step / s) for begin, s in zip(start, spacing, strict=True)]
        return ndimage.affine_transform(
            array, [scale for _, scale in places], [begin for begin, _ in places], tuple(sizes), None, order, "constant", outside
        )

    shifted = [begin + s for begin, s in zip(offset, spacing, strict=True)]  # the padding's voxel
    inside, solid = (
        on_cubes(signed_distance(np.pad(mask, 1), spacing), 1, shifted, counts, -step)
        for mask in (region.labels > BACKGROUND, (region.labels > BACKGROUND) & (region.labels != TUMOR))
    )
    labels = (inside > 0).astype(np.uint8) * KIDNEY
    if (region.labels == CYST).any():
        labels[(on_cubes((region.labels == CYST).astype(np.float32), 1, offset, counts, 0.0) > 0.5) & (labels > 0)] = CYST
    tumors: list[tuple[np.ndarray, tuple[slice, slice, slice]]] = []
    for box in ndimage.find_objects(region.tumors):
        number = len(tumors) + 1
        mask = np.pad(region.tumors[box] == number, 2)
        begin = [(b.start - 2) * s for b, s in zip(box, spacing, strict=True)]  # of the padded box, in the window
        low = [max(0, int(np.floor((b - o) / step))) for b, o in zip(begin, offset, strict=True)]
        high = [
            min(count, ceil((b + (n - 1) * s - o) / step) + 1)
            for b, n, s, o, count in zip(begin, mask.shape, spacing, offset, counts, strict=True)
        ]
        start = [o + lo * step - b for o, lo, b in zip(offset, low, begin, strict=True)]
        distance = on_cubes(signed_distance(mask, spacing), 1, start, [h - lo for lo, h in zip(low, high, strict=True)], -step)
        place = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        labels[place][(distance > -TIE_MM) & (labels[place] > BACKGROUND)] = TUMOR
        tumors.append((distance, place))
    origin = tuple(f + o for f, o in zip(first, offset, strict=True))
    return Cubes(labels, inside, solid, tumors, step, (origin[0], origin[1], origin[2]))


def signed_distance(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Compute the signed distance in mm to the border, positive inside.

    The border is half way between voxels of the two kinds.
    """
    return distance_to(~mask, spacing) - distance_to(mask, spacing)


def distance_to(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Compute the mm from every voxel's center to the nearest one in the mask.

    0 inside; infinite where it is empty.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing([float(s) for s in spacing[::-1]])
    found = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayFromImage(found), 0)
