"""Networks by name. A checkpoint names its network in plain data, so the names are an allow-list and never an import path."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from kits.errors import KitsError
from kits.models.finenet import FineNet
from kits.models.unet3d import UNet3d

NETWORKS: dict[str, Callable[..., nn.Module]] = {"unet3d": UNet3d, "finenet": FineNet}
# What a checkpoint meant that was written before its network had these options. No defaults: a training names them all.
BEFORE: dict[str, dict[str, Any]] = {
    "unet3d": {"width": None, "depth": None, "spacing": None, "stem": None, "deep_supervision": 0},
    "finenet": {
        "input": "replicate",
        "window_hu": None,
        "windows_hu": [],
        "data_window_hu": [],
        "plane": "axial",
        "deep_supervision": 0,
        "freeze_stages": 0,
        "slices_at_once": None,
        "checkpointing": False,
    },
}


def completed(model: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's `model` with the options that its network has got since."""
    return {**BEFORE.get(str(model.get("name")), {}), **model}


def build_network(model: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
    """Build the network that `model` describes: its `name` and that network's options (conf/model/*.yaml).

    `pretrained=False` leaves the encoders' initial weights out, which is what a checkpoint that brings its own needs:
    neither the weight packages nor the model hub are touched.

    Raises KitsError for an unknown name, an unknown option or a missing one.
    """
    options = dict(model)
    name = options.pop("name", None)
    if name not in NETWORKS:
        raise KitsError(f"model.name: no network {name!r}; choose one of {', '.join(sorted(NETWORKS))}")
    build = NETWORKS[name]
    check_options(build, options, f"model {name}")
    if name == "finenet":
        options["pretrained"] = pretrained
    return build(**options)


def check_options(build: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    """Raise KitsError naming the keys of `options` that `build` does not take, or those that it needs and lacks."""
    parameters = [name for name in inspect.signature(build).parameters if name != "pretrained"]
    if unknown := sorted(set(options) - set(parameters)):
        raise KitsError(f"{where}: unknown option {', '.join(unknown)}; it takes {', '.join(parameters)}")
    if missing := [name for name in parameters if name not in options]:
        raise KitsError(f"{where}: option {', '.join(missing)} is missing; add it to the configuration")
