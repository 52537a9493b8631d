"""How the learning rate goes over a training, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from kits.errors import KitsError


def constant(progress: float) -> float:
    """The rate stays."""
    return 1.0


def cosine(progress: float, *, final: float) -> float:
    """Half a cosine from 1 down to `final` (Loshchilov and Hutter, arXiv 1608.03983, without restarts)."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def poly(progress: float, *, power: float) -> float:
    """nnU-Net's (1 - progress) ** power (Isensee et al., arXiv 1904.08128), by step instead of by epoch."""
    return (1 - progress) ** power


# Progress of the training, 0 to 1, and options -> share of optimizer.lr.
DECAYS: dict[str, Callable[..., float]] = {"constant": constant, "cosine": cosine, "poly": poly}
SCHEDULERS = (*DECAYS, "plateau")


def build_scheduler(options: Mapping[str, Any], optimizer: Optimizer, steps: float, score: str) -> dict[str, Any]:
    """What Lightning takes as `lr_scheduler`.

    Args:
        options: `name` and that scheduler's options (conf/scheduler/*.yaml).
        steps: optimizer steps of the whole training.
        score: what `plateau` watches; higher is better.

    Raises:
        KitsError: an unknown name, wrong options, or a training without an end under a schedule that needs one.
    """
    arguments = dict(options)
    name = arguments.pop("name", None)
    if name not in SCHEDULERS:
        raise KitsError(f"scheduler.name={name}: no such scheduler; take one of {', '.join(SCHEDULERS)}")
    try:
        if name == "plateau":
            return {"scheduler": ReduceLROnPlateau(optimizer, mode="max", **arguments), "interval": "epoch", "monitor": score}
        rate = rate_by_step(DECAYS[name], steps=steps, **arguments)
    except (TypeError, ValueError) as error:
        raise KitsError(f"scheduler: {name}: {error}; conf/scheduler/{name}.yaml has its options") from error
    if name != "constant" and not math.isfinite(steps):
        raise KitsError(f"scheduler.name={name}: needs a training with an end; give trainer.max_epochs=N, or scheduler=constant")
    return {"scheduler": LambdaLR(optimizer, rate), "interval": "step"}


def rate_by_step(decay: Callable[..., float], *, steps: float, warmup: float, **options: float) -> Callable[[int], float]:
    """Step from 0 -> share of the learning rate: a linear rise over the share `warmup` of the steps, then `decay`."""
    decay(0.0, **options)  # an unknown or missing option is told now
    rise = warmup * steps if warmup else 0.0

    def rate(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return decay(min(1.0, (step - rise) / max(1.0, steps - rise)), **options)

    return rate
