"""Networks by name, their layers, weights and checkpoints.

A checkpoint names its network in plain data: one of ours or of an installed plug-in, never an import path.
Rooms above may import it.
"""
# ruff: noqa: E402

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

# timm takes wandb along where it is installed, for its own scripts: a quarter of what its import takes, and wandb then watches
# what is printed. Where None stands for it, timm goes without.
_wandb = sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]
import timm  # noqa: F401

if _wandb is None:
    del sys.modules["wandb"]

from kits.config.schema import parse
from kits.config.schema.model import Model
from kits.models.finenet import FineNet
from kits.models.own_network import OwnNetwork
from kits.models.unet3d import UNet3d

NETWORKS: dict[str, Callable[[Any, bool], nn.Module]] = {"unet3d": UNet3d, "finenet": FineNet, "own": OwnNetwork}


def build_network(model: Mapping[str, object] | Model, *, pretrained: bool) -> nn.Module:
    """Build the network that options describe, or plain ones, which the schema checks here.

    `pretrained=False` leaves the encoders' initial weights out, for a checkpoint that brings its own.

    Raises KitsError for an unknown name, an unknown option, a missing one, or values that do not go together.
    """
    options = parse(Model, model, "model")
    return NETWORKS[options.name](options, pretrained)
