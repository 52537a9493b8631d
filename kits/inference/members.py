"""Several networks, their mirror images and sources as one, and what networks must share for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits.config.schema.base import text
from kits.config.schema.exported import Exported
from kits.core.errors import KitsError
from kits.inference.devices import TYPES
from kits.inference.sliding import Maps

Network = Callable[[Tensor], Tensor]
# Axes of (B, C, D, H, W) that are turned over: left and right, as augmentation does. No network has seen a patient front to back:
# averaged over such too, a scan's kidney Dice fell from 0.95 to 0.31.
MIRRORED = ((), (4,))
# What the checkpoints of one stage must have in common to be averaged, but for names and ids of label maps.
SHARED = ("data", "inference", "roi", "postprocess")
OWN = ("label_name", "labels")


@dataclass(frozen=True)
class Members:
    """The networks of one stage.

    Attributes:
        networks: one logit means a probability by itself (sigmoid), several are classes (softmax).
        precision: `32`, or autocast in `16` or `bf16`.
        half_on: the type of device that this precision is for; on another, where want of memory has led, networks compute in 32.
        mirror: also read every window with left and right exchanged, and average.
        outputs: what is wanted beside labels; `probabilities` costs nothing.
    """

    networks: Sequence[Network]
    precision: str = "32"
    half_on: str = "cpu"
    mirror: bool = False
    outputs: Sequence[str] = ()

    @property
    def reach(self) -> int | None:
        """Most slices to each side that a voxel's maps depend on; None where a network does not tell."""
        reaches: list[int | None] = [getattr(network, "reach", None) for network in self.networks]
        known = [reach for reach in reaches if reach is not None]
        return max(known) if len(known) == len(reaches) else None

    def __call__(self, volume: Tensor) -> Maps:
        """Compute the maps of a window (1, 1, D, H, W), all float32 (channels, D, H, W).

        `classes`: the mean probability (C). With `uncertainty` also `members`, the mean probability of those that can disagree
        (the networks where there are several, else the sources of the one), and `unsure`, the mean entropy of each of them (1).
        With `sources` the probabilities of every source of every network (S C).
        """
        fused, sources = [], []
        for network in self.networks:
            whole, parts = self._mirrored(network, volume)
            fused.append(whole)
            sources += parts
        maps = {"classes": mean(fused)}
        if "uncertainty" in self.outputs:
            members = fused if len(fused) > 1 or not sources else sources
            maps["members"] = mean(members)
            maps["unsure"] = mean([entropy(member)[None] for member in members])
        if "sources" in self.outputs and sources:
            maps["sources"] = torch.cat(sources)
        return maps

    def _mirrored(self, network: Network, volume: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Average the probabilities (C, D, H, W) of a network and of its sources over the mirror images."""
        total: list[Tensor] = []
        turns = MIRRORED if self.mirror else MIRRORED[:1]
        for axes in turns:
            found = [probabilities(turned(logits, axes)[0]) for logits in self._logits(network, turned(volume, axes))]
            total = [one.add_(other) for one, other in zip(total, found, strict=True)] if total else found
        fused, *sources = [one.div_(len(turns)) for one in total] if len(turns) > 1 else total
        return fused, sources

    def _logits(self, network: Network, volume: Tensor) -> list[Tensor]:
        """Compute fused logits, then those of each source where they are needed and there are any."""
        dtype, device = TYPES[self.precision], volume.device.type
        with torch.autocast(device, dtype, enabled=dtype != torch.float32 and device == self.half_on):
            wanted = "sources" in self.outputs or ("uncertainty" in self.outputs and len(self.networks) == 1)
            if wanted and hasattr(network, "all_logits"):
                fused, sources = network.all_logits(volume)
                return [fused, *sources]
            return [network(volume)]


def turned(volume: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Turn a volume over along some axes; itself, without a copy, for none."""
    return volume.flip(axes) if axes else volume


def probabilities(logits: Tensor) -> Tensor:
    """Turn logits into probabilities, float32; a lone logit is a class by itself."""
    # In half precision a probability would have three digits, and means and thresholds would be taken of these.
    logits = logits.float()
    return logits.sigmoid() if len(logits) == 1 else logits.softmax(dim=0)


def mean(parts: Sequence[Tensor]) -> Tensor:
    """Average several maps; itself of one."""
    return torch.stack(list(parts)).mean(dim=0) if len(parts) > 1 else parts[0]


def entropy(probability: Tensor) -> Tensor:
    """Compute - sum of p ln p over the classes (C, D, H, W), in nats; 0 ln 0 is 0."""
    return torch.special.entr(probability).sum(dim=0)


def disagreement_of(maps: Maps) -> Tensor:
    """Compute entropy of the mean and mutual information (2, D, H, W) of members' maps; 1 is ln C nats.

    The entropy is all of the uncertainty; the part of it that is disagreement is the mutual information between the class and the
    choice of the member (Gal et al., arXiv 1703.02910). The rest, the mean entropy, is what each member is unsure of by itself.
    """
    total = entropy(maps["members"])
    # What rounding leaves below zero is none.
    mutual = (total - maps["unsure"][0]).clamp_min(0)
    return torch.stack([total, mutual]) / math.log(len(maps["members"]))


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
