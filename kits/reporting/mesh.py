"""Surfaces of a label map as triangles in mm, by marching cubes, few enough for a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.reporting.rendering import EDGE_MM, surface_field
from kits.reporting.scene import Window, length
from kits.volume import Spacing

MESH_MM = 2.0  # triangles of about this side: a kidney has some 6000
MOST_TRIANGLES = 20_000  # of one surface; a larger one gets larger triangles
MOST_VERTICES = 2**16  # that two bytes can number
LEVEL = 0.5  # of a field, on the surface
STEP_MM = 0.1  # of the stored coordinates


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes:
        vertices: (N, 3) float32 mm, x to the patient's left, y to the back, z to the head, from the volume's corner.
        triangles: (M, 3) numbers of vertices.
    """

    vertices: np.ndarray
    triangles: np.ndarray

    def packed(self) -> bytes:
        """Pack coordinates in `STEP_MM` and vertex numbers as differences, little-endian uint16.

        Neighbors in a mesh are neighbors in the list, so differences are small and compress to about a third.
        """
        steps = np.round(self.vertices / STEP_MM).astype(np.int64)
        differences = np.diff(steps, axis=0, prepend=np.zeros((1, 3), np.int64)).T, np.diff(self.triangles.ravel(), prepend=0)
        return b"".join((part % MOST_VERTICES).astype("<u2").tobytes() for part in differences)


def mesh_of(mask: np.ndarray, window: Window, spacing: Spacing) -> Mesh | None:
    """Find the surface of a mask; None where it is empty, or too small for the grid to meet it.

    Args:
        mask: bool (z, y, x), the part of a volume at `window`.
        spacing: (z, y, x) mm.
    """
    from skimage.measure import marching_cubes

    if not mask.any():
        return None
    volume_mm3 = float(np.prod([length(part) * step for part, step in zip(window, spacing, strict=True)]))
    grid_mm = max(MESH_MM, (volume_mm3 / 8e6) ** (1 / 3))
    field = surface_field(mask, spacing, grid_mm)
    if field.max() <= LEVEL:  # a speck between the points of this grid, or smoothed away
        grid_mm = min(spacing)
        field = surface_field(mask, spacing, grid_mm)
        if field.max() <= LEVEL:
            return None
    vertices, triangles, _, _ = marching_cubes(field, LEVEL, allow_degenerate=False)
    if len(triangles) > MOST_TRIANGLES:  # they are about as many as the grid's squares that the surface covers
        grid_mm *= 1.05 * (len(triangles) / MOST_TRIANGLES) ** 0.5
        vertices, triangles, _, _ = marching_cubes(surface_field(mask, spacing, grid_mm), LEVEL, allow_degenerate=False)
    corner = [part.start * step - EDGE_MM for part, step in zip(window, spacing, strict=True)]
    return Mesh(((vertices + 0.5) * grid_mm + corner)[:, ::-1].astype(np.float32), triangles)
