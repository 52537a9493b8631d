"""How sure the fine network is, from how far its sources agree.

Every source is one member of an ensemble. The entropy of their mean probability is all of the uncertainty; the part of it that is
disagreement is the mutual information between the class and the choice of the source (Gal et al., arXiv 1703.02910; the rest,
the mean entropy, is what each source is unsure of by itself). In nats: ln C at most, 0 where all are certain of the same class.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kits.models.finenet import FineNet


def entropy(probability: Tensor, axis: int) -> Tensor:
    """- sum of p ln p along `axis`, which goes; 0 ln 0 is 0."""
    return torch.special.entr(probability).sum(dim=axis)


def disagreement(logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Entropy of the mean probability and mutual information, both float32 (B, D, H, W), of sources' logits (B, C, D, H, W)."""
    probability = torch.stack([one.float().softmax(dim=1) for one in logits])
    total = entropy(probability.mean(dim=0), 1)
    # What rounding leaves below zero is none.
    return total, (total - entropy(probability, 2).mean(dim=0)).clamp_min(0)


def stacked_sources(network: FineNet) -> Callable[[Tensor], Tensor]:
    """A network (B, 1, D, H, W) -> (B, (1 + sources) C, D, H, W): fused logits first, then each source's own.

    It goes where a network goes that is read window by window (`kits.inference.sliding_logits`); `unstacked` takes the result
    apart again.
    """

    def logits(volume: Tensor) -> Tensor:
        fused, sources = network.all_logits(volume)
        return torch.cat([fused, *sources], dim=1)

    return logits


def unstacked(logits: Tensor, classes: int) -> tuple[Tensor, list[Tensor]]:
    """Fused logits and each source's own, of what `stacked_sources` gave for one volume: ((1 + sources) C, D, H, W)."""
    fused, *sources = logits.split(classes)
    return fused, sources
