"""Augmentation as the configuration describes it, through MONAI's transforms.

A configuration may name only the transforms below, and of each only these arguments: it must not be able to call anything else.
MONAI takes seconds to import, so it is imported when the first patch is augmented, in the process that does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kits.data.warp import Warp
from kits.errors import KitsError
from kits.intensity import PAD_HU, normalise
from kits.labels import BACKGROUND
from kits.volume import Spacing, Triple, crop

KEY = "augmentation"
Check = Callable[[Any], bool]


def is_probability(value: Any) -> bool:
    """a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_number(value: Any) -> bool:
    """a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_pair(value: Any) -> bool:
    """[low, high]."""
    return isinstance(value, Sequence) and len(value) == 2 and all(map(is_number, value)) and value[0] <= value[1]


def is_range(value: Any) -> bool:
    """a number or [low, high]."""
    return is_number(value) or is_pair(value)


def is_spread(value: Any) -> bool:
    """a number above 0 or [low, high] with low < high; prob: 0 switches it off."""
    return (is_number(value) and value > 0) or (is_pair(value) and value[0] < value[1])


def is_range_per_axis(value: Any) -> bool:
    """[z, y, x], a number or [low, high] each."""
    return isinstance(value, Sequence) and len(value) == 3 and all(map(is_range, value))


def is_axis(value: Any) -> bool:
    """0, 1 or 2: z, y or x."""
    return value in (0, 1, 2) and not isinstance(value, bool)


def is_counts(value: Any) -> bool:
    """[z, y, x], whole numbers above 1."""
    return isinstance(value, Sequence) and len(value) == 3 and all(isinstance(n, int) and n > 1 for n in value)


def is_padding(value: Any) -> bool:
    """a whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_switch(value: Any) -> bool:
    """true or false."""
    return isinstance(value, bool)


@dataclass(frozen=True)
class Allowed:
    """A transform of MONAI that a configuration may name.

    Attributes:
        on: `flip` and `warp` act on image and label, `hu` on the image in HU, `window` on it in [-1, 1].
        needs: arguments of MONAI's own that must be given, each with its check; the check's docstring says what is allowed.
        takes: arguments that may be given.
        fixed: arguments that we set.
    """

    on: str
    needs: dict[str, Check] = field(default_factory=dict)
    takes: dict[str, Check] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)


TRANSFORMS = {
    "RandFlip": Allowed("flip", {"spatial_axis": is_axis}),
    "RandAffine": Allowed("warp", {}, dict.fromkeys(("rotate_range", "shear_range", "scale_range"), is_range_per_axis)),
    "RandSmoothDeform": Allowed(
        "warp", {"rand_size": is_counts, "def_range": is_spread}, {"pad": is_padding}, {"spatial_size": None}
    ),
    "RandScaleIntensity": Allowed("hu", {"factors": is_range}),
    "RandShiftIntensity": Allowed("hu", {"offsets": is_range}),
    "RandGaussianNoise": Allowed("hu", {"std": is_number}, {"mean": is_number, "sample_std": is_switch}),
    # They see the slices as channels and so stay within each: slices are 0.5 to 5 mm apart, and thick ones are smooth already.
    "RandGaussianSmooth": Allowed("hu", {"sigma_x": is_pair, "sigma_y": is_pair}),
    "RandSimulateLowResolution": Allowed("hu", {"zoom_range": is_pair}, {}, {"upsample_mode": "bilinear"}),
    "RandAdjustContrast": Allowed("window", {"gamma": is_pair}, {"invert_image": is_switch, "retain_stats": is_switch}),
}


def check(options: dict[str, Any]) -> None:
    """Refuse what is no configuration of an augmentation, without importing MONAI.

    Raises:
        KitsError: the text names the key and what is allowed there.
    """
    if not isinstance(options, dict):
        raise KitsError(f"{KEY}={options}: no entries by name; take one of none, light, full")
    warps: list[str] = []
    for name, step in options.items():
        key = f"{KEY}.{name}"
        transform = step.get("transform") if isinstance(step, dict) else step
        if not isinstance(transform, str) or transform not in TRANSFORMS:
            raise KitsError(f"{key}.transform={transform}: no transform to augment with; take one of {', '.join(TRANSFORMS)}")
        check_arguments(key, step)
        if transform in warps:
            raise KitsError(f"{key}.transform={transform}: named twice; one resampling has one of each, merge their ranges")
        warps += [transform] if TRANSFORMS[transform].on == "warp" else []


def check_arguments(key: str, step: dict[str, Any]) -> None:
    """Refuse unknown, missing and impossible arguments of one entry."""
    transform = step["transform"]
    allowed = TRANSFORMS[transform]
    known = {"prob": is_probability, **allowed.needs, **allowed.takes}
    for argument, value in step.items():
        if argument == "transform":
            continue
        if argument not in known:
            raise KitsError(f"{key}.{argument}: {transform} takes no such argument here; take some of {', '.join(known)}")
        if not known[argument](value):
            raise KitsError(f"{key}.{argument}={value}: cannot be used; give {meaning(known[argument])}")
    for argument in ("prob", *allowed.needs):
        if argument not in step:
            raise KitsError(f"{key}.{argument}: no value given; {transform} needs {meaning(known[argument])}")


def meaning(accepts: Check) -> str:
    """What a check accepts, in words."""
    return str(accepts.__doc__).rstrip(".")


class State(np.random.RandomState):
    """The random state that MONAI's transforms ask for, but whose normal numbers are torch's: float32, several times as fast."""

    def __init__(self, seed: Sequence[int]) -> None:
        super().__init__(np.random.PCG64(seed))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Normal numbers float32."""
        generator = torch.Generator().manual_seed(int(self.randint(2**31)))
        return torch.randn(size, generator=generator).mul_(float(scale)).add_(float(loc)).numpy()


class Augmentation:
    """Cuts patches, and varies them as the configuration says.

    Args:
        options: entries by name: `transform`, `prob` and the transform's arguments; those with a probability of 0 are left out.
        patch: voxels (z, y, x).
        window: HU that become -1 and 1.

    Raises:
        KitsError: `options` cannot be used.
    """

    def __init__(self, options: dict[str, Any], patch: Triple, window: Sequence[float]) -> None:
        check(options)
        self.options = {name: step for name, step in options.items() if step["prob"] > 0}
        self.patch, self.window = patch, window
        self._steps: dict[str, list[Any]] | None = None
        self._warp: Warp | None = None

    def __call__(
        self, image: np.ndarray, label: np.ndarray, start: Triple, spacing: Spacing, seed: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """One patch of a volume and what the seed makes of it.

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
        steps = self._seeded(seed)
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

    def _seeded(self, seed: Sequence[int]) -> dict[str, list[Any]]:
        """The steps, all drawing from one state that starts at the seed."""
        if self._steps is None:
            self._build()
        assert self._steps is not None
        state = State(seed)
        for steps in self._steps.values():
            for step in steps:
                step.set_random_state(state=state)
        return self._steps

    def _build(self) -> None:
        """MONAI's transforms, by what they act on.

        Raises:
            KitsError: MONAI refuses an argument.
        """
        from monai import transforms

        found: dict[str, list[Any]] = {"flip": [], "warp": [], "hu": [], "window": []}
        for name, step in self.options.items():
            allowed = TRANSFORMS[step["transform"]]
            arguments = {key: value for key, value in step.items() if key != "transform"}
            try:
                transform = getattr(transforms, step["transform"])(**arguments, **allowed.fixed)
            except (TypeError, ValueError) as error:
                raise KitsError(f"{KEY}.{name}: {' '.join(str(error).split())}") from error
            found[allowed.on].append(transform)
        kinds = {type(step).__name__: step for step in found["warp"]}
        if kinds:
            self._warp = Warp(kinds.get("RandAffine"), kinds.get("RandSmoothDeform"), self.patch)
        self._steps = found

    def __getstate__(self) -> dict[str, Any]:
        # A worker builds its own: MONAI's objects are large to send.
        return {**self.__dict__, "_steps": None, "_warp": None}


def _plain(tensor: Tensor) -> Tensor:
    """Without what MONAI notes beside a tensor."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
