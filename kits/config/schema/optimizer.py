"""The groups `optimizer` and `scheduler`: conf/optimizer/*.yaml, conf/scheduler/*.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kits.config.schema.base import Fraction, Index, Inside, Length, Options, Positive, Share, Switch
from kits.config.schema.own import OwnOr


class OptimizerOptions(Options):
    """Options of every optimizer.

    Attributes:
        encoder_factor: a pretrained encoder's learning rate, times lr.
        encoder_decay: and times this again for each scale before its last.
        init_factor: the learning rate of what another run's weights give, times all that.
    """

    lr: Positive
    weight_decay: Length
    encoder_factor: Length
    encoder_decay: Positive
    init_factor: Length


class Adam(OptimizerOptions):
    """Adam, or AdamW with decoupled weight decay."""

    name: Literal["adam", "adamw"]


class Sgd(OptimizerOptions):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    momentum: Fraction
    nesterov: Switch


NamedOptimizer = Annotated[Adam | Sgd, Field(discriminator="name")]
Optimizer = OwnOr[NamedOptimizer]


class Constant(Options):
    """The rate stays, after a rise over the share `warmup` of the training."""

    name: Literal["constant"]
    warmup: Fraction


class Cosine(Options):
    """Half a cosine down to the share `final`."""

    name: Literal["cosine"]
    warmup: Fraction
    final: Share


class Poly(Options):
    """(1 - progress) ** power."""

    name: Literal["poly"]
    warmup: Fraction
    power: Positive


class Plateau(Options):
    """The rate times `factor` after `patience` epochs without a better score, down to `min_lr`."""

    name: Literal["plateau"]
    factor: Inside
    patience: Index
    min_lr: Length


NamedScheduler = Annotated[Constant | Cosine | Poly | Plateau, Field(discriminator="name")]
Scheduler = OwnOr[NamedScheduler]
