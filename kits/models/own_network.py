"""A whole network of an installed plug-in in the place of one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kits.config.plug_ins import MODELS, plug_in
from kits.config.schema.model import OwnNetworkOptions
from kits.models.layers import check_in_plane


class OwnNetwork(nn.Module):
    """(B, 1, D, H, W) in [-1, 1] -> logits (B, classes, D, H, W), by a plug-in.

    It is called as `network(classes=..., **arguments)`. What it makes has to take any D >= 1, and H and W that are
    multiples of `in_plane_multiple`.

    Raises:
        KitsError: it cannot be imported or built, is no torch.nn.Module, or gives another shape.
    """

    def __init__(self, options: OwnNetworkOptions, pretrained: bool) -> None:  # its weights are its own business
        super().__init__()
        self.classes, self.in_plane_multiple = options.classes, options.in_plane_multiple
        side = 2 * self.in_plane_multiple
        with plug_in(MODELS, options.network) as network:
            built = network(classes=self.classes, **(options.model_extra or {}))
            self.network = tried_on(built, torch.zeros(1, 1, 3, side, side), shape=(1, self.classes, 3, side, side))

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the logits of every voxel of `volume`, (B, 1, D, H, W)."""
        check_in_plane(volume, self.in_plane_multiple)
        return self.network(volume)

    def training_logits(self, volume: Tensor) -> Any:
        """Compute logits as the stage wants them: a pyramid of one level, or fused logits of no sources."""
        logits = self(volume)
        return [logits] if self.classes == 1 else (logits, [])  # the coarse stage alone has one class


def tried_on(part: Any, *given: Any, shape: Sequence[int]) -> nn.Module:
    """Return a plug-in's part, if it is a module that gives a tensor of this shape.

    Raises:
        TypeError, ValueError: it is not.
    """
    if not isinstance(part, nn.Module):
        raise TypeError(f"it makes {type(part).__name__}, no torch.nn.Module")
    part.eval()
    with torch.no_grad():
        found = part(*given)
    if not isinstance(found, Tensor) or found.shape != tuple(shape):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"it gives {what} instead of {tuple(shape)}")
    return part.train()
