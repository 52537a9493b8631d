"""Messages between the processes of one distributed training.

A process that trains alone hears only itself.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, distributed

T = TypeVar("T")


def ranks() -> int:
    """Count the processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def global_sum(counts: Tensor) -> Tensor:
    """Sum a training step's `counts` over all ranks, with the gradient of the global batch.

    Distributed training averages the ranks' gradients, so the loss L of the sum S = N_1 + ... + N_W needs, on rank r, the
    gradient W dL/dS dN_r/dw: the mean over the ranks is then dL/dw of the whole batch.
    """
    world = ranks()
    if world == 1 or not counts.requires_grad:
        return counts
    total = counts.detach().clone()
    distributed.all_reduce(total)
    return total + world * (counts - counts.detach())


def gather(own: dict[str, T]) -> dict[str, T]:
    """Gather the entries of all ranks on every rank, sorted by key; no key is on two ranks."""
    world = ranks()
    everyone: list[dict[str, T]] = [own] * world
    if world > 1:
        distributed.all_gather_object(everyone, own)
    together = {key: value for entries in everyone for key, value in entries.items()}
    return {key: together[key] for key in sorted(together)}
