"""Many cases shared out to processes that never talk: each knows its share by its number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from kits.core.errors import KitsError

T = TypeVar("T")

# What torchrun and srun tell each process: its number among all, how many there are, and its number on its own machine. One
# of these alone is another program's, and means nothing here. Not SLURM_NTASKS: a batch script has that too, and a command
# without srun would do one share and nobody the others.
TORCHRUN, SRUN = "torchrun", "srun"
LAUNCHERS = {
    TORCHRUN: ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    SRUN: ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
}


@dataclass(frozen=True)
class Place:
    """This process among those that were started with it.

    Attributes:
        number, count: which it is, from 0, and how many there are.
        local: its number on its own machine.
        launcher: TORCHRUN, SRUN, or None where it was started alone.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    launcher: str | None = None


def share(items: Sequence[T], shard: int, shards: int, sizes: Sequence[float] | None = None) -> list[T]:
    """Return the items of process `shard` (from 0) of `shards`, in their order.

    Every item is in exactly one share. With `sizes`, of whatever the time grows with, the largest item goes first, each to the
    share with least so far (Graham's LPT rule: the largest share is at most 4/3 of the best possible). Without, they are dealt in
    turn.

    Raises:
        KitsError: there is no such shard.
    """
    if shards < 1 or not 0 <= shard < shards:
        raise KitsError(f"shard={shard} shards={shards}: give a shard from 0 to shards - 1")
    if sizes is None:
        return list(items[shard::shards])
    loads, owner = [0.0] * shards, [0] * len(items)
    for place in sorted(range(len(items)), key=lambda place: (-sizes[place], place)):
        owner[place] = min(range(shards), key=loads.__getitem__)
        loads[owner[place]] += sizes[place]
    return [item for item, its_owner in zip(items, owner, strict=True) if its_owner == shard]


def choose_shard(shard: int | None, shards: int | None) -> tuple[int, int]:
    """Return `shard=K shards=N` where they are given, else what the launcher says.

    Raises:
        KitsError: only one of them is given, or there is no such shard.
    """
    if (shard is None) != (shards is None):
        raise KitsError(f"shard={shard} shards={shards}: give both, shard from 0 to shards - 1, or neither")
    if shard is None or shards is None:
        place = launched()
        return place.number, place.count
    share((), shard, shards)
    return shard, shards


def started_by_srun() -> bool:
    """Tell whether srun started this process, alone or among others."""
    return "SLURM_STEP_NUM_TASKS" in os.environ


def read_rank(name: str) -> int:
    """Read a number that a launcher has set, 0 where there is none, and refuse anything else."""
    try:
        return int(os.environ.get(name, "0"))
    except ValueError as error:
        raise KitsError(f"{name}={os.environ[name]}: the environment holds no whole number there; unset it") from error


def launched() -> Place:
    """Find where torchrun or srun has put this process."""
    for launcher, names in LAUNCHERS.items():
        if all(name in os.environ for name in names):
            number, count, local = map(read_rank, names)
            return Place(number, count, local, launcher)
    return Place()
