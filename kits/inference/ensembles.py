"""Several checkpoints of a stage as one: what they must have in common, and their encoders' appetite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kits.core.errors import KitsError

# Of a configuration, what the checkpoints of one stage must have in common to be averaged.
SHARED = {
    "coarse": ("data.window_hu", "data.coarse_size", "data.coarse_z_mm", "inference", "roi"),
    "fine": ("data.window_hu", "data.classes", "inference", "roi", "postprocess"),
}


def agreed(configs: Sequence[Mapping[str, Any]], stage: str) -> Mapping[str, Any]:
    """Return the first of several configurations that say the same of what `SHARED` names.

    Raises:
        KitsError: there is none, or two differ.
    """
    if not configs:
        raise KitsError(f"{stage}: no checkpoint given; name at least one")
    for number, config in enumerate(configs[1:], start=2):
        for key in SHARED[stage]:
            first, other = (value_at(one, key) for one in (configs[0], config))
            if first != other:
                raise KitsError(
                    f"{stage}: checkpoint {number} was trained with {key}={other}, the first with {first}; average only those"
                    " that agree"
                )
    return configs[0]


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Look up `group.key`."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def limit_slices(networks: Sequence[nn.Module], count: int | None) -> None:
    """Let so many slices pass the encoders in one go, or all.

    Evaluation does not mix slices there, so results stay the same.
    """
    for network in networks:
        for module in network.modules():
            if hasattr(module, "slices_at_once"):
                module.slices_at_once = count  # type: ignore[assignment]
