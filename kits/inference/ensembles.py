"""Several checkpoints of a stage as one: what they must have in common, and their encoders' appetite."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from kits.config.schema.base import text
from kits.config.schema.exported import Exported
from kits.core.errors import KitsError

# What the checkpoints of one stage must have in common to be averaged, but for names and ids of label maps.
SHARED = ("data", "inference", "roi", "postprocess")
OWN = ("label_name", "labels")


def agreed(settings: Sequence[Exported], stage: str) -> Exported:
    """Return the first of several checkpoints' settings, all of which agree in what `SHARED` names.

    Raises:
        KitsError: there is none, or two differ.
    """
    if not settings:
        raise KitsError(f"{stage}: no checkpoint given; name at least one")
    first = shared(settings[0])
    for number, other in enumerate(settings[1:], start=2):
        for key, value in shared(other).items():
            if value != first[key]:
                was = f"was trained with {key}={text(value)}, the first with {text(first[key])}"
                raise KitsError(f"{stage}: checkpoint {number} {was}; average only those that agree")
    return settings[0]


def shared(settings: Exported) -> dict[str, object]:
    """Return what networks must share to be averaged, by dotted key."""
    groups = [(group, part) for group, part in settings if group in SHARED]
    return {f"{group}.{key}": value for group, part in groups for key, value in part if key not in OWN}


def limit_slices(networks: Sequence[nn.Module], count: int | None) -> None:
    """Let so many slices pass the encoders in one go, or all; results stay the same."""
    for network in networks:
        for module in network.modules():
            if hasattr(module, "slices_at_once"):
                module.slices_at_once = count  # type: ignore[assignment]
