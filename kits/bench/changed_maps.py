"""Label maps as other hands, scanners and programs would have them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from kits.core.labels import CYST, KIDNEY, TUMOR
from kits.readout import read_out
from kits.readout.cubes import signed_distance
from kits.volume import Spacing

THICK_MM = 5.0
CUT_SHARE = 0.25


def variants_of(labels: np.ndarray, spacing: Spacing) -> Iterator[tuple[str, tuple[np.ndarray, Spacing]]]:
    """Return a label map (z, y, x) dilated, eroded, in slices of 5 mm, turned, and without a part.

    By a pixel in-plane; turned by 15 degrees in its plane; the part is a quarter of a kidney.
    """
    cross = ndimage.generate_binary_structure(2, 1)[None]
    for name, change in (("dilated", ndimage.binary_dilation), ("eroded", ndimage.binary_erosion)):
        whole = change(labels > 0, cross)
        yield name, (np.where(change(labels == TUMOR, cross), TUMOR, whole * KIDNEY).astype(np.uint8), spacing)
    if spacing[0] < THICK_MM:
        yield "slices of 5 mm", (sliced(labels, spacing), (THICK_MM, *spacing[1:]))
    yield "turned by 15 degrees", (turned(labels, spacing, 15.0), spacing)
    # The quarter of the kidney's slices that is farther from the tumor.
    largest = max(read_out(labels, spacing).shapes, key=lambda shapes: int((shapes.region.tumors == 1).sum()))
    window = largest.region.window[0]
    middle = float(np.argwhere((largest.region.tumors == 1).any(axis=(1, 2))).mean()) + window.start
    share = round(CUT_SHARE * (window.stop - window.start))
    upper = middle < (window.start + window.stop) / 2
    yield "cut by a quarter", (labels[: window.stop - share] if upper else labels[window.start + share :], spacing)


def sliced(labels: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Resample a label map (z, y, x) to slices every 5 mm from its first one on.

    Signed distances are interpolated between its slices: the nearest slice would, of slices 2 or 3 mm apart, be 4 or 6 mm on.
    """
    places = np.arange(0, (len(labels) - 1) * spacing[0] + 1e-6, THICK_MM) / spacing[0]
    below = np.minimum(places.astype(int), len(labels) - 2)
    share = (places - below)[:, None, None]

    def filled(mask: np.ndarray) -> np.ndarray:
        # Smoothed a little in-plane, or a pixel that only one of two slices fills is a tie half way between them.
        distance = ndimage.gaussian_filter(signed_distance(mask, spacing), (0, 0.7, 0.7))
        return np.asarray((1 - share) * distance[below] + share * distance[below + 1] > 0)

    found = filled(labels > 0).astype(np.uint8) * KIDNEY
    for label in (CYST, TUMOR):
        if (labels == label).any():
            found[filled(labels == label)] = label
    return found


def turned(labels: np.ndarray, spacing: Spacing, degrees: float) -> np.ndarray:
    """Turn a label map (z, y, x) in its plane, by the nearest voxel; rows and columns grow to hold it."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    _, dy, dx = spacing
    matrix = np.array([[1, 0, 0], [0, cosine, -sine * dx / dy], [0, sine * dy / dx, cosine]])
    size = np.array(labels.shape)
    grown = np.ceil(np.abs(np.linalg.inv(matrix)) @ size).astype(int)
    middle = (size - 1) / 2 - matrix @ ((grown - 1) / 2)
    return np.asarray(ndimage.affine_transform(labels, matrix, middle, tuple(grown), order=0))
