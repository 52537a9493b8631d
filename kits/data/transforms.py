"""Augmentation through MONAI, whose slow import waits until the first patch is augmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kits.config.own_parts import blame, build
from kits.config.schema.augmentation import StepOptions
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND
from kits.data.warp import Warp
from kits.volume import Spacing, Triple, crop
from kits.volume.hu import PAD_HU, normalise


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
