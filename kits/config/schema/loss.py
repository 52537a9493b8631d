"""The group `loss`: conf/loss/*.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kits.config.schema.base import Length, Number, Options, Positive, Switch
from kits.config.schema.own import OwnOr


class LossOptions(Options):
    """Options of every loss.

    Attributes:
        smooth: e, added to numerator and denominator.
        per_sample: count voxels in each sample, not over the whole batch.
        class_weights: of the regions in the mean; None weights them equally.
        over: the regions: each class, all of the foreground as one, or both.
    """

    smooth: Length
    per_sample: Switch
    class_weights: Annotated[list[Length], Field(min_length=1)] | None
    over: Literal["classes", "foreground", "both"]


class BiasDiceOptions(LossOptions):
    """The paper's; b >= 1, for less would favor precision."""

    name: Literal["bias_dice"]
    bias: Annotated[Number, Field(ge=1)]


class DiceOptions(LossOptions):
    """Soft Dice: bias-dice with b = 1."""

    name: Literal["dice"]


class DiceCeOptions(LossOptions):
    """dice_weight * bias-dice + ce_weight * cross entropy."""

    name: Literal["dice_ce"]
    bias: Annotated[Number, Field(ge=1)]
    dice_weight: Length
    ce_weight: Length


class TverskyOptions(LossOptions):
    """`alpha` weights false positives, `beta` false negatives."""

    name: Literal["tversky"]
    alpha: Length
    beta: Length


class FocalTverskyOptions(LossOptions):
    """Tversky's loss to the power 1 / gamma."""

    name: Literal["focal_tversky"]
    alpha: Length
    beta: Length
    gamma: Positive


NamedLoss = Annotated[
    BiasDiceOptions | DiceOptions | DiceCeOptions | TverskyOptions | FocalTverskyOptions, Field(discriminator="name")
]
Loss = OwnOr[NamedLoss]
