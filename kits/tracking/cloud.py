"""Prediction and truth of a case as colored points of their surfaces, to turn in a browser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kits.reporting.scene import COLORS, Scene

MOST_POINTS = 12000  # of a cloud: about 0.5 MB as JSON, and a kidney still looks closed
GAP_MM = 20.0  # between the prediction and the truth beside it


@dataclass(frozen=True)
class Cloud:
    """Points (n, 3) float32 (x, y, z) mm, positive to left, back and head; colors (n, 3) uint8."""

    points: np.ndarray
    colors: np.ndarray


def surface_cloud(scene: Scene) -> Cloud:
    """Sample the surfaces of the prediction, and of the truth beside it, in at most MOST_POINTS points."""
    from matplotlib.colors import to_rgb

    window = scene.marked
    if window is None:
        return Cloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    spacing = np.array(scene.spacing)
    start = np.array([part.start for part in window])
    aside = (window[2].stop - window[2].start) * spacing[2] + GAP_MM
    points, colors = [], []
    for place, labels in enumerate(scene.maps):
        inside = np.asarray(labels[window])
        for label, name in scene.names.items():
            mask = inside == label
            # Padded, so that what touches the window's face has a surface there too.
            shell = mask & ~ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
            zyx = (np.argwhere(shell) + start + 0.5) * spacing
            points.append(zyx[:, ::-1] + [place * aside, 0, 0])
            colors.append(np.tile(np.round(255 * np.array(to_rgb(COLORS[name]))), (len(zyx), 1)))
    everything, paint = np.concatenate(points), np.concatenate(colors)
    keep = np.sort(np.random.default_rng(0).permutation(len(everything))[:MOST_POINTS])
    return Cloud(everything[keep].astype(np.float32), paint[keep].astype(np.uint8))
