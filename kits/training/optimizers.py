"""The optimizer, with learning rates by part of the network, and the schedule of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer
from torch import nn, optim
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from kits.config.own_parts import blame, build
from kits.config.schema import optimizer as schema
from kits.models.encoder2d import Encoder2d
from kits.tracking.names import SCORE

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}
FACTORS = ("encoder_factor", "encoder_decay", "init_factor")


def build_optimizer(options: schema.Optimizer, network: nn.Module, new: Collection[str] | None = None) -> optim.Optimizer:
    """Build the optimizer that `options` name, or a user's own, for all parameters that learn.

    Raises:
        KitsError: of the user's own there is none such, or it refuses its arguments.
    """
    if isinstance(options, dict):
        rest = dict(options)
        factors = {name: rest.pop(name) for name in FACTORS}
        with blame(options, "optimizer"):
            groups = parameter_groups(network, rest["lr"], new=new, **factors)
        return build(rest, "optimizer", groups)
    factors = {name: getattr(options, name) for name in FACTORS}
    own = options.model_dump(exclude={"name", *FACTORS})
    return OPTIMIZERS[options.name](parameter_groups(network, options.lr, new=new, **factors), **own)


def parameter_groups(
    network: nn.Module,
    lr: float,
    *,
    encoder_factor: float,
    encoder_decay: float,
    init_factor: float = 1,
    new: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Return groups {params, lr} for an optimizer, of all parameters that learn.

    Those of an encoder's scale k of n learn at lr * encoder_factor * encoder_decay ** (n - 1 - k), all others at lr (layer-wise
    decay as in Clark et al., arXiv 2003.10555, by scale). With both factors 1, and in a network without 2D encoders, there is one
    group. Where another run's weights are gone on with, all but what is `new` learns at that times init_factor.
    """
    factors: dict[int, float] = {}
    for encoder in network.modules():
        if isinstance(encoder, Encoder2d):
            last = len(encoder.reductions) - 1
            stage = encoder.stages() if encoder_decay != 1 else {}
            for name, parameter in encoder.features.named_parameters():
                factors[id(parameter)] = encoder_factor * encoder_decay ** (last - stage.get(name, last))
    groups: dict[float, dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = lr * factors.get(id(parameter), 1.0) * (1 if new is None or name in new else init_factor)
            groups.setdefault(rate, {"params": [], "lr": rate})["params"].append(parameter)
    return list(groups.values())


def constant(progress: float) -> float:
    """Keep the rate."""
    return 1.0


def cosine(progress: float, *, final: float) -> float:
    """Compute half a cosine from 1 down to `final` (Loshchilov and Hutter, arXiv 1608.03983)."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def poly(progress: float, *, power: float) -> float:
    """Compute nnU-Net's (1 - progress) ** power (Isensee et al., arXiv 1904.08128), by step."""
    return (1 - progress) ** power


# Progress of the training, 0 to 1, and options -> share of optimizer.lr.
DECAYS: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "poly": poly}


def build_scheduler(
    options: schema.Scheduler,
    optimizer: Optimizer,
    steps: float,
    epochs: int,
    elapsed: Callable[[], float] | None = None,
) -> dict[str, object]:
    """Build what Lightning takes as `lr_scheduler`.

    Args:
        options: of conf/scheduler/*.yaml.
        steps: optimizer steps of the whole training.
        epochs: from one score, which `plateau` watches, to the next.
        elapsed: share of the time limit that is over, where there is one: the rate then falls with whichever ends first.

    Raises:
        KitsError: one of the user's own cannot be built.
    """
    if isinstance(options, dict):
        own = {key: value for key, value in options.items() if key != "interval"}
        scheduler = build(own, "scheduler", optimizer)
        watches = isinstance(scheduler, ReduceLROnPlateau)  # the score, which not every epoch has
        more = {"interval": "epoch", "frequency": epochs} if watches else {"interval": options["interval"]}
        return {"scheduler": scheduler, "monitor": SCORE, **more}
    if isinstance(options, schema.Plateau):
        factor, patience, min_lr = options.factor, options.patience, options.min_lr
        plateau = ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience, min_lr=min_lr)
        return {"scheduler": plateau, "interval": "epoch", "frequency": epochs, "monitor": SCORE}
    own = options.model_dump(exclude={"name", "warmup"})
    rate = rate_by_step(partial(DECAYS[options.name], **own), options.warmup * steps, steps, elapsed)
    return {"scheduler": LambdaLR(optimizer, rate), "interval": "step"}


def rate_by_step(
    decay: Callable[[float], float], rise: float, steps: float, elapsed: Callable[[], float] | None = None
) -> Callable[[float], float]:
    """Step from 0 -> share of the learning rate: a linear rise over `rise` of the `steps`, then `decay`.

    `elapsed` is the share of the time that is over; where it runs ahead of the steps, it counts.
    """

    def rate(step: float) -> float:
        if elapsed:
            step = max(step, elapsed() * steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        return decay(min(1.0, (step - rise) / max(1.0, steps - rise)))

    return rate


def clock_of(trainer: pl.Trainer) -> Callable[[], float] | None:
    """Return a clock of the share of `trainer.max_time` that is over; None where no limit is set."""
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]

    def elapsed() -> float:
        assert timer is not None
        over, left = timer.time_elapsed(), timer.time_remaining() or 0.0
        # Clocks differ, and processes with other rates would learn other weights.
        return float(trainer.strategy.broadcast(over / max(over + left, 1e-9)))

    return elapsed if timer else None
