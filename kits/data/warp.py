"""Rotation, scaling and elastic deformation by MONAI's random transforms, as one resampling.

A warped patch is read from a window of the volume that is as large as the warp needs, so that turning or shrinking brings no
padding into it; only what lies beyond the scan is air.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from kits.core.labels import BACKGROUND
from kits.volume import Spacing, Triple, crop
from kits.volume.hu import PAD_HU


@dataclass(frozen=True)
class WarpWindow:
    """The place where the voxels of a patch are read.

    Attributes:
        start: first voxel (z, y, x) of the window, relative to the patch's own.
        shape: voxels of the window.
        grid: (1, D, H, W, 3), for each voxel of the patch a place in the window as `grid_sample` counts: (x, y, z) in [-1, 1].
    """

    start: Triple
    shape: Triple
    grid: Tensor

    def read(self, image: np.ndarray, label: np.ndarray, start: Triple) -> tuple[Tensor, Tensor]:
        """Read the warped patch of first voxel `start`: trilinear HU float32, labels by nearest neighbor."""
        corner = (start[0] + self.start[0], start[1] + self.start[1], start[2] + self.start[2])
        hu = torch.from_numpy(crop(image, corner, self.shape, PAD_HU)).to(torch.float32)[None, None]
        # Outside is nothing but what rounding puts there.
        warped = grid_sample(hu, self.grid, mode="bilinear", padding_mode="border", align_corners=True)[0, 0]
        labels = crop(label, corner, self.shape, BACKGROUND)
        return warped, torch.from_numpy(labels.ravel()[self._nearest().numpy()])

    def _nearest(self) -> Tensor:
        """Find (D, H, W) positions in the flattened window: four times as fast as `grid_sample` of labels."""
        flat = torch.zeros(self.grid.shape[1:4], dtype=torch.int32)
        for axis, length in enumerate(self.shape):
            index = self.grid[0, ..., 2 - axis].add(1).mul_((length - 1) / 2).round_().clamp_(0, length - 1)
            flat = flat * length + index.to(torch.int32)
        return flat


class Warp:
    """One random map of space, from MONAI's `RandAffine` and `RandSmoothDeform` together.

    Both are smooth enough for a small grid of control points: the deformation is one, and trilinear interpolation between
    points that an affine map has moved is that map, exactly. So the map of all voxels costs one interpolation.

    Args:
        affine: MONAI's transform or None; angles and shear are taken in millimeters, scale factors along the axes.
        deform: MONAI's transform or None; 1 is half the patch's extent along each axis.
        patch: voxels (z, y, x).
    """

    def __init__(self, affine: Any, deform: Any, patch: Triple) -> None:
        self.affine, self.deform, self.patch = affine, deform, patch
        self.middle = (torch.tensor(patch, dtype=torch.float64) - 1) / 2

    def draw(self, spacing: Spacing) -> WarpWindow | None:
        """Draw the window and grid of a warp at this spacing (z, y, x) in mm; None where chance spares it."""
        matrix = self._matrix(spacing)
        field = self._field()
        if matrix is None and field is None:
            return None
        points = self._points((2, 2, 2) if field is None else field.shape[1:])
        if field is not None:
            # As many voxels as the whole field may move along an axis at its edge.
            points = points + field * (torch.tensor(self.patch, dtype=torch.float64) / 2)[:, None, None, None]
        if matrix is not None:
            points = torch.einsum("ij,jzyx->izyx", matrix, points)
        places = points + self.middle[:, None, None, None]
        flat = places.flatten(1)  # trilinear interpolation stays between its control points
        low = torch.floor(flat.amin(1) + 1e-6)
        high = torch.maximum(torch.ceil(flat.amax(1) - 1e-6), low + 1)
        unit = 2 * (places - low[:, None, None, None]) / (high - low)[:, None, None, None] - 1
        grid = interpolate(unit.flip(0)[None].to(torch.float32), size=self.patch, mode="trilinear", align_corners=True)
        start, shape = low.int().tolist(), (high - low + 1).int().tolist()
        return WarpWindow((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]), grid.permute(0, 2, 3, 4, 1))

    def _points(self, shape: torch.Size | Triple) -> Tensor:
        """Control points spread evenly over the patch: (3, *shape), voxels from its middle."""
        lines = [torch.linspace(-half, half, n, dtype=torch.float64) for half, n in zip(self.middle.tolist(), shape, strict=True)]
        return torch.stack(torch.meshgrid(*lines, indexing="ij"))

    def _matrix(self, spacing: Spacing) -> Tensor | None:
        """Compose the (3, 3) matrix on voxels from the middle out of MONAI's, which counts in mm."""
        if self.affine is None:
            return None
        self.affine.randomize()
        if not self.affine._do_transform:
            return None
        grid = self.affine.rand_affine_grid
        grid(self.patch, randomize=False, lazy=True)
        mm = torch.tensor(spacing, dtype=torch.float64)
        matrix: Tensor = grid.get_transformation_matrix()[:3, :3].to(torch.float64)
        return matrix * mm / mm[:, None]

    def _field(self) -> Tensor | None:
        """Return displacements of the deformation's control points (3, ...), in halves of the patch."""
        if self.deform is None:
            return None
        self.deform.randomize()
        if not self.deform._do_transform:
            return None
        field: Tensor = self.deform.sfield.field[0].to(torch.float64)
        return field
