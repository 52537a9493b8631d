"""The optimizer, with learning rates by part of the network."""

from collections.abc import Collection
from typing import Any

from torch import nn, optim

from kits.config.own_parts import blame, build
from kits.config.schema import optimizer as schema
from kits.models.encoder2d import Encoder2d

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
