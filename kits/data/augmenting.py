"""What a configuration may say about augmentation, without torch or MONAI: a mistake is told before either is imported.

A configuration may name only the transforms below, and of each only these arguments: it must not be able to call anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kits.errors import KitsError

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
