"""The group `augmentation`: of MONAI only these transforms, and of each only these arguments."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, Tag

from kits.config.schema.base import Index, Meaning, Number, Options, Positive, Share, Switch, Window, not_descending, refuse
from kits.config.schema.own import NAMED, OWN, OWN_OR_NAMED, is_target

Pair = Annotated[tuple[Number, Number], Meaning("[low, high]", not_descending)]
Range = Annotated[Number | Pair, Meaning("a number or [low, high]")]
RangePerAxis = Annotated[tuple[Range, Range, Range], Meaning("[z, y, x], a number or [low, high] each")]
Points = Annotated[int, Field(strict=True, gt=1)]


class StepOptions(Options):
    """A transform with its probability; its fields are MONAI's arguments.

    Attributes:
        on: `flip` and `warp` act on image and label, `hu` on the image in HU, `window` on it in [-1, 1].
        fixed: arguments that are ours.
    """

    on: ClassVar[str]
    fixed: ClassVar[dict[str, Any]] = {}
    prob: Share

    def arguments(self) -> dict[str, Any]:
        """Return MONAI's arguments: those that are given, and ours."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"transform"}} | self.fixed


class RandFlip(StepOptions):
    """Turn the patch over."""

    on = "flip"
    transform: Literal["RandFlip"]
    spatial_axis: Annotated[Literal[0, 1, 2], Meaning("0, 1 or 2: z, y or x")]


class RandAffine(StepOptions):
    """Rotate, shear and scale."""

    on = "warp"
    transform: Literal["RandAffine"]
    rotate_range: RangePerAxis = (0, 0, 0)
    shear_range: RangePerAxis = (0, 0, 0)
    scale_range: RangePerAxis = (0, 0, 0)


class RandSmoothDeform(StepOptions):
    """Bend smoothly."""

    on = "warp"
    fixed: ClassVar = {"spatial_size": None}
    transform: Literal["RandSmoothDeform"]
    rand_size: Annotated[tuple[Points, Points, Points], Meaning("[z, y, x], whole numbers above 1")]
    def_range: Annotated[Positive | Window, Meaning("a number above 0 or [low, high] with low < high; prob: 0 switches it off")]
    pad: Annotated[Index, Meaning("a whole number")] = 0


class RandScaleIntensity(StepOptions):
    """HU times 1 +- `factors`."""

    on = "hu"
    transform: Literal["RandScaleIntensity"]
    factors: Range


class RandShiftIntensity(StepOptions):
    """HU +- `offsets`."""

    on = "hu"
    transform: Literal["RandShiftIntensity"]
    offsets: Range


class RandGaussianNoise(StepOptions):
    """Noise."""

    on = "hu"
    transform: Literal["RandGaussianNoise"]
    std: Number
    mean: Number = 0
    sample_std: Switch = True


class RandGaussianSmooth(StepOptions):
    """Blur within each slice: slices are 0.5 to 5 mm apart, and thick ones are smooth already."""

    on = "hu"
    transform: Literal["RandGaussianSmooth"]
    sigma_x: Pair
    sigma_y: Pair


class RandSimulateLowResolution(StepOptions):
    """Fewer pixels of each slice, and up again."""

    on = "hu"
    fixed: ClassVar = {"upsample_mode": "bilinear"}
    transform: Literal["RandSimulateLowResolution"]
    zoom_range: Pair


class RandAdjustContrast(StepOptions):
    """Gamma between the patch's own darkest and brightest."""

    on = "window"
    transform: Literal["RandAdjustContrast"]
    gamma: Pair
    invert_image: Switch = False
    retain_stats: Switch = False


# One of the user's own says whether it takes HU or [-1, 1].
A_TRANSFORM = "keys with values, of one of your own _target_: MODULE.NAME and on: hu or window"
OwnStep = Annotated[dict[str, Any], Meaning(A_TRANSFORM, lambda step: step.get("on") in ("hu", "window") and is_target(step))]
NamedStep = Annotated[
    RandFlip
    | RandAffine
    | RandSmoothDeform
    | RandScaleIntensity
    | RandShiftIntensity
    | RandGaussianNoise
    | RandGaussianSmooth
    | RandSimulateLowResolution
    | RandAdjustContrast,
    Field(discriminator="transform"),
]
AnyStep = Annotated[Annotated[OwnStep, Tag(OWN)] | Annotated[NamedStep, Tag(NAMED)], OWN_OR_NAMED, Meaning(A_TRANSFORM)]


def one_of_each_warp(steps: dict[str, StepOptions | dict[str, Any]]) -> dict[str, StepOptions | dict[str, Any]]:
    """Refuse two steps of a kind that are done in the one resampling."""
    warps = [type(step).__name__ for step in steps.values() if isinstance(step, StepOptions) and step.on == "warp"]
    for name, step in reversed(steps.items()):
        if warps.count(type(step).__name__) > 1:
            twice = "named twice; one resampling has one of each, merge their ranges"
            raise refuse(f"augmentation.{name}.transform", type(step).__name__, twice)
    return steps


Augmentation = Annotated[dict[str, AnyStep], AfterValidator(one_of_each_warp)]
