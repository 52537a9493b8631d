"""Options of a prediction: how to run, what to change of the checkpoints' own, what to give back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kits.config import check_whole
from kits.core.errors import KitsError
from kits.inference.devices import AUTO, TYPES
from kits.inference.members import check_outputs


@dataclass(frozen=True)
class SegmenterOptions:
    """SegmenterOptions of a `Segmenter`; None is as the checkpoints say.

    Attributes:
        precision: 32, bf16 or 16, the halves in autocast; auto is the fastest on the device.
        mirror: read everything with left and right exchanged too and average: twice the work.
        window: slices that a fine network sees at once; fewer need less memory and show it less context.
        slices_at_once: slices that pass an encoder in one go; fewer need less memory, and the result is the same.
        margin_mm: around each ROI of the coarse stage.
        min_component_ml: smaller components of the result go.
        outputs: beside the labels, some of probabilities, uncertainty, sources; all of them inside the ROIs only.
        allow_implausible: a volume whose numbers cannot be HU is a warning and not an error.
    """

    precision: str = AUTO
    mirror: bool | None = None
    window: int | None = None
    slices_at_once: int | None = None
    margin_mm: float | None = None
    min_component_ml: float | None = None
    outputs: tuple[str, ...] = ()
    allow_implausible: bool = True

    def __post_init__(self) -> None:
        """Raise KitsError for a value that is none."""
        if self.precision not in (AUTO, *TYPES):
            raise KitsError(f"precision={self.precision}: no such precision; take one of {', '.join((AUTO, *TYPES))}")
        check_outputs(self.outputs)
        for name in ("window", "slices_at_once"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        for name in ("margin_mm", "min_component_ml"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise KitsError(f"{name}={value}: give 0 or more")

    def into_coarse(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Put these options into a coarse checkpoint's configuration."""
        return merged(config, {"roi": {"margin_mm": self.margin_mm}})

    def into_fine(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Put these options into a fine checkpoint's configuration."""
        return merged(config, {"inference": {"window": self.window}, "postprocess": {"min_ml": self.min_component_ml}})


def merged(config: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Copy a configuration with some keys of its groups changed; None changes nothing."""
    result = copy.deepcopy(dict(config))
    for group, values in changes.items():
        result[group].update({key: value for key, value in values.items() if value is not None})
    return result
