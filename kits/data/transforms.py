"""Augmentation through MONAI, whose slow import waits until the first patch is augmented.

Rotation, scaling and elastic deformation are one resampling. A warped patch is read from a window of the volume that is as large
as the warp needs, so that turning or shrinking brings no padding into it; only what lies beyond the scan is air.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from kits.config.own_parts import blame, build
from kits.config.schema.augmentation import StepOptions
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND
from kits.volume import Spacing, Triple, crop
from kits.volume.hu import PAD_HU, normalise


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


class State(np.random.RandomState):
    """The random state that MONAI asks for, with torch's normal numbers: float32, several times as fast."""

    def __init__(self, seed: Sequence[int]) -> None:
        super().__init__(np.random.PCG64(seed))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Draw normal numbers, float32."""
        generator = torch.Generator().manual_seed(int(self.randint(2**31)))
        return torch.randn(size, generator=generator).mul_(float(scale)).add_(float(loc)).numpy()


class Augmentation:
    """Cuts patches, and varies them as the configuration says.

    Args:
        options: the group `augmentation`; steps with a probability of 0 are left out.
        patch: voxels (z, y, x).
        window: HU that become -1 and 1.
    """

    def __init__(self, options: Mapping[str, StepOptions | dict[str, Any]], patch: Triple, window: Sequence[float]) -> None:
        chances = {name: step.get("prob", 1) if isinstance(step, dict) else step.prob for name, step in options.items()}
        self.options = {name: step for name, step in options.items() if chances[name] != 0}
        self.patch, self.window = patch, window
        self._steps: dict[str, list[Any]] | None = None
        self._warp: Warp | None = None

    def __call__(
        self, image: np.ndarray, label: np.ndarray, start: Triple, spacing: Spacing, seed: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Cut one patch of a volume and vary it as the seed says.

        Args:
            image: HU (z, y, x), the whole volume.
            label: the same shape.
            start: first voxel of the patch; beyond the volume there is air.
            spacing: (z, y, x) mm.
            seed: decides everything that is random here.

        Returns:
            Image float32 (D, H, W) in [-1, 1] and label (D, H, W) of its own type.
        """
        if not self.options:
            labels = torch.from_numpy(self._cut(label, start, BACKGROUND))
            return self._windowed(torch.from_numpy(self._cut(image, start, PAD_HU))), labels
        self._steps = steps = self._steps or self._build()
        state = State(seed)  # all draw from the one
        for step in chain.from_iterable(steps.values()):
            step.set_random_state(state=state)
        window = self._warp.draw(spacing) if self._warp else None
        if window:
            hu, labels = window.read(image, label, start)
        else:
            hu = torch.from_numpy(self._cut(image, start, PAD_HU))
            labels = torch.from_numpy(self._cut(label, start, BACKGROUND))
        for flip in steps["flip"]:
            flip.randomize(None)
            hu, labels = (flip(volume[None], randomize=False)[0] for volume in (hu, labels))
        hu = hu.to(torch.float32)
        for step in steps["hu"]:
            hu = step(hu)
        scaled = self._windowed(_plain(hu))
        for step in steps["window"]:
            scaled = step(scaled)
        return _plain(scaled), _plain(labels)

    def _cut(self, array: np.ndarray, start: Triple, pad_value: int) -> np.ndarray:
        return crop(array, start, self.patch, pad_value)

    def _windowed(self, hu: Tensor) -> Tensor:
        return torch.from_numpy(normalise(hu.numpy(), self.window))

    def _build(self) -> dict[str, list[Any]]:
        """Build MONAI's transforms, by what they act on."""
        from monai import transforms

        found: dict[str, list[Any]] = {"flip": [], "warp": [], "hu": [], "window": []}
        for name, step in self.options.items():
            if isinstance(step, dict):
                found[step["on"]].append(OwnTransform(step, f"augmentation.{name}"))
                continue
            try:
                transform = getattr(transforms, type(step).__name__)(**step.arguments())
            except (TypeError, ValueError) as error:
                raise KitsError(f"augmentation.{name}: {' '.join(str(error).split())}") from error
            found[step.on].append(transform)
        kinds = {type(step).__name__: step for step in found["warp"]}
        if kinds:
            self._warp = Warp(kinds.get("RandAffine"), kinds.get("RandSmoothDeform"), self.patch)
        return found

    def __getstate__(self) -> dict[str, object]:
        # A worker builds its own: MONAI's objects are large to send.
        return {**self.__dict__, "_steps": None, "_warp": None}


class OwnTransform:
    """A transform of the user's own, which like MONAI's takes volumes with a channel, (1, D, H, W)."""

    def __init__(self, own: dict[str, Any], key: str) -> None:
        self.own, self.key = own, key
        self.transform = build({name: value for name, value in own.items() if name != "on"}, key)

    def set_random_state(self, state: np.random.RandomState) -> None:
        """Draw from this state, if it draws at all."""
        if hasattr(self.transform, "set_random_state"):
            self.transform.set_random_state(state=state)

    def __call__(self, volume: Tensor) -> Tensor:
        with blame(self.own, self.key):
            changed = torch.as_tensor(self.transform(volume[None]))[0]
            if changed.shape != volume.shape:
                raise ValueError(f"it makes {tuple(changed.shape)} of {tuple(volume.shape)}")
        return changed


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor without what MONAI notes beside it."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
