"""The options of the two networks against each other, and the sizes that they take, without building them."""

from __future__ import annotations

import math
from math import prod
from pathlib import Path
from typing import Any

from kits.checks.rules import RULES, text
from kits.errors import KitsError
from kits.pooling import anisotropic_levels

# timm's families of five scales, of which scale k has 1 / 2 ** (k + 1) of the image's pixels along a side. Of others only the
# network itself knows; it says so when it is built.
HALVING = (
    *("tf_efficientnet", "tf_efficientnetv2", "efficientnet", "efficientnetv2", "test_efficientnet"),
    *("resnet", "resnext", "mobilenetv2", "mobilenetv3", "tf_mobilenetv3"),
)
HALVING_SCALES = 5
# What a source must say, what it may say for itself instead of the network's option, and where weights come from but files.
NEEDED = ("backbone", "weights")
OWN = ("input", "window_hu", "windows_hu", "plane", "out_indices")
WEIGHTS = (None, "imagenet", "hub")


def check_unet3d(model: dict[str, Any]) -> None:
    """Levels that agree in number."""
    if model["widths"] is None and None in (model["width"], model["depth"]):
        raise KitsError("model.width, model.depth: give both, or the list model.widths")
    levels = count_levels(model)
    for key in ("strides", "kernels"):
        if model[key] is None and model["spacing"] is None:
            raise KitsError(f"model.spacing: no value given; model.{key}=null is chosen from it")
        if model[key] is not None and len(model[key]) != levels:
            known = "model.depth" if model["widths"] is None else "the length of model.widths"
            raise KitsError(f"model.{key}: {len(model[key])} entries for {levels} levels ({known}); give one (z, y, x) per level")
    if any(size % 2 == 0 for kernel in model["kernels"] or () for size in kernel):
        raise KitsError(f"model.kernels={text(model['kernels'])}: even sizes shift the image; give odd ones")
    check_supervision(model, levels)


def check_finenet(model: dict[str, Any]) -> None:
    """Sources that can be built, and scales that agree in number."""
    if not isinstance(model["sources"], list) or not model["sources"]:
        raise KitsError("model.sources: the list is empty; give at least one {backbone: NAME, weights: imagenet|hub|FILE|null}")
    if model["widths"] is None or model["width"] is None:
        raise KitsError("model.widths, model.width: finenet needs both; give one width per scale of model.out_indices")
    for position, source in enumerate(model["sources"]):
        check_source(position, source, model)
    check_supervision(model, len(model["widths"]))
    if model["freeze_stages"] != "all" and model["freeze_stages"] > len(model["widths"]):
        raise KitsError(f"model.freeze_stages={model['freeze_stages']}: give 0 to {len(model['widths'])}, or all")


def check_source(position: int, source: Any, model: dict[str, Any]) -> None:
    """One entry of `model.sources`, with the network's options where it says nothing itself."""
    where = f"model.sources[{position}]"
    if not isinstance(source, dict) or not set(NEEDED) <= set(source) <= {*NEEDED, *OWN}:
        given = ", ".join(source) if isinstance(source, dict) else text(source)
        raise KitsError(f"{where}: has {given}; it needs {', '.join(NEEDED)}, and may have {', '.join(OWN)}")
    for name in OWN:
        rule = RULES[f"model.{name}"]
        if name in source and not rule.accepts(source[name]):
            raise KitsError(f"{where}.{name}={text(source[name])}: give {rule.meaning}")
    own = {**{name: model[name] for name in OWN}, **source}
    scales, backbone = own["out_indices"], own["backbone"]
    if list(scales) != sorted(set(scales)):
        raise KitsError(f"model.out_indices={text(scales)}: give the scales in ascending order, each once")
    if halves(backbone) and scales[-1] >= HALVING_SCALES:
        raise KitsError(f"model.out_indices={text(scales)}: {backbone} has the scales 0 to {HALVING_SCALES - 1}")
    if len(scales) != len(model["widths"]):
        raise KitsError(
            f"model.widths={text(model['widths'])}: {len(model['widths'])} widths for {len(scales)} scales,"
            f" model.out_indices={text(scales)}; give one width per scale"
        )
    if own["weights"] not in WEIGHTS and not Path(own["weights"]).is_file():
        raise KitsError(
            f"{where}.weights={own['weights']}: no such file; give imagenet, hub, null or a .safetensors or .pth file"
        )
    # Every family of HALVING has BatchNorm, whose statistics would be moved twice by slices that pass twice.
    if model["checkpointing"] and not model["freeze_statistics"] and model["freeze_stages"] != "all" and halves(backbone):
        raise KitsError("model.checkpointing=true: every slice passes BatchNorm twice; give model.freeze_statistics=true too")
    check_windows(own, model["data_window_hu"])


def check_windows(source: dict[str, Any], whole: list[float]) -> None:
    """HU windows that the data's window holds: what was clipped cannot come back."""
    if source["input"] == "windows" and (source["window_hu"] is not None or len(source["windows_hu"]) != 3):
        raise KitsError("model.input=windows: it takes three windows in model.windows_hu, and model.window_hu=null")
    windows = source["windows_hu"] if source["input"] == "windows" else [source["window_hu"] or whole]
    for window in windows:
        if not whole[0] <= window[0] < window[1] <= whole[1]:
            raise KitsError(
                f"model window {text(window)} HU: is not inside data.window_hu={text(whole)}; choose another, or widen that"
            )


def check_supervision(model: dict[str, Any], levels: int) -> None:
    """Heads for no more coarser levels than there are."""
    if model["deep_supervision"] >= levels:
        raise KitsError(f"model.deep_supervision={model['deep_supervision']}: give 0 to {levels - 1}, there are {levels} levels")


def count_levels(model: dict[str, Any]) -> int:
    """Levels of the 3D U-Net."""
    return int(model["depth"]) if model["widths"] is None else len(model["widths"])


def coarse_multiple(model: dict[str, Any]) -> int:
    """What divides the in-plane size that the 3D U-Net takes: the product of its strides along each side."""
    strides = model["strides"] or anisotropic_levels(model["spacing"], count_levels(model), model["stem"])[0]
    return math.lcm(*(prod(stride[axis] for stride in strides) for axis in (1, 2)))


def fine_multiple(model: dict[str, Any]) -> int:
    """What divides the in-plane sizes that all sources take; 1 stands for a source that cannot be known here."""
    sources = ({"out_indices": model["out_indices"], **source} for source in model["sources"])
    return math.lcm(*(2 ** (source["out_indices"][-1] + 1) if halves(source["backbone"]) else 1 for source in sources))


def halves(backbone: str) -> bool:
    """Whether a backbone is one of HALVING; its name goes on after the family's with a digit or an underscore."""
    return isinstance(backbone, str) and any(
        backbone.startswith(family) and not backbone[len(family) : len(family) + 1].isalpha() for family in HALVING
    )
