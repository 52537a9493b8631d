"""The LightningDataModule of both stages: patches for training, whole cases for validation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.core.sharding import share
from kits.data.cache import cache_settings, digest
from kits.data.datasets import (
    CachedCase,
    CoarseWindows,
    Patches,
    PatchLoader,
    RoiPatches,
    allow_open_maps,
    outlive_signals,
    worker_context,
)
from kits.data.prepared import one_case, read_index, read_subsets
from kits.data.roi_boxes import with_boxes
from kits.data.splits import draw_cases
from kits.runs.resuming import batches_done


class EpochSampler(Sampler[int]):
    """Positions that go on from epoch to epoch, so that no epoch repeats another's patches.

    Of `ranks` processes each takes every `ranks`-th position, so their batches of a step together are those that one process
    with the batches of them all would have drawn. A rest that does not go round is left out: all ranks take as many steps.

    Args:
        length: positions of an epoch, of all processes together.
        done: by epoch, the positions of it that this process of an interrupted run has been trained on.
    """

    def __init__(self, length: int, rank: int = 0, ranks: int = 1, *, done: Mapping[int, int] | None = None) -> None:
        self.length, self.rank, self.ranks = length, rank, ranks
        self.epoch = 0
        self.done = done or {}

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, as Lightning does before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.ranks

    def __iter__(self) -> Iterator[int]:
        first, done = self.epoch * self.length, self.done.get(self.epoch, 0)
        return iter(range(first + self.rank + done * self.ranks, first + len(self) * self.ranks, self.ranks))


class KitsDataModule(pl.LightningDataModule):
    """The cases of a prepared cache as a LightningDataModule: patches to train on, whole cases.

    They are split as `kits.prepare` split them; whole cases are validated on. Each of several processes gets its own share, by
    the trainer's number for it. The state that Lightning keeps in a checkpoint is the place within an epoch: a training that goes
    on from there sees the patches that are left. The loaders have a generator of their own: from the global one they would draw a
    seed each time they begin, and a resumed run begins them at other places.

    Args:
        options: of a training; read are `stage`, `data`, `sampling`, `seed` and `fold`.

    Attributes:
        data_hash: tells the cached cases from any others. This and what follows is there after `setup`.
        split: ids of the cases, `train` and `validation`.
        cases: the same as `CachedCase`.
    """

    def __init__(self, options: Coarse | Fine) -> None:
        super().__init__()
        self.options = options
        self.data_hash = ""
        self.split: dict[str, list[str]] = {}
        self.cases: dict[str, list[CachedCase]] = {}
        self._trained_on: dict[int, int] = {}  # by epoch, the patches of it that an interrupted run has been trained on

    def setup(self, stage: str | None = None) -> None:
        """Read the index of the cache and its split, once; `python -m kits.prepare` made them.

        Raises:
            KitsError: the cache has not been prepared, or was prepared with other settings; its split is not of its cases, of
                another kind than `data.split` asks for, or has no such fold; `data.overfit` is no training case; `data.boxes`
                are refused.
        """
        if self.data_hash:
            return
        data, cache = self.options.data, Path(self.options.data.cache)
        index = read_index(cache, cache_settings(data))
        records = index["cases"]
        split = read_subsets(cache, records, data.split, self.options.fold)
        if index["data_hash"] != digest([record["key"] for record in records.values()]):
            raise KitsError(f"{cache / 'index.json'}: damaged or edited (its data_hash); run kits.prepare again")
        split["train"] = draw_cases(split["train"], data.train_cases, self.options.seed)
        if data.overfit is not None:
            split = one_case(split, data.overfit)
        if data.roi == "oof":
            records = with_boxes(records, Path(str(data.boxes)))
        self.split = split
        self.cases = {part: [CachedCase(cache, records[case]) for case in ids] for part, ids in split.items()}
        allow_open_maps(len(records))
        self.data_hash = index["data_hash"]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return this process's batches of `image` (B, 1, D, H, W) in [-1, 1] and `label` (B, D, H, W).

        Raises:
            KitsError: an epoch has no batch for every process.
        """
        self.check_batches()
        options, (rank, ranks), gpus = self.options, self._place(), self._gpus()
        if isinstance(options, Coarse):
            patches: Patches[Any] = CoarseWindows(self.cases["train"], options.data, options.sampling, options.seed)
        else:
            # Jitter makes true boxes like those that coarse networks predict; out-of-fold boxes are such.
            still = {"jitter_mm": 0} if options.data.roi == "oof" else {}
            sampling = options.sampling.model_copy(update=still)
            patches = RoiPatches(self.cases["train"], options.data, sampling, options.seed)
        workers = self.workers()
        return PatchLoader(
            patches,
            batch_size=options.sampling.batch_size,
            sampler=EpochSampler(len(patches), rank, ranks, done=self._trained_on),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=gpus > 0,  # memory that a GPU can fetch from
            multiprocessing_context=worker_context(patches) if workers else None,
            worker_init_fn=outlive_signals if workers else None,
            generator=torch.Generator(),
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[CachedCase | None]:
        """Return one `CachedCase` at a time: this process's share, or None once where there is none.

        None because Lightning leaves out the validation of a process that has no batch, and the others would wait for its scores.
        """
        cases = self.cases["validation"]
        own = share(cases, *self._place(), [prod(case.shape) for case in cases])
        listed: Any = own or [None]  # a list has all that a loader asks of a data set
        return DataLoader(listed, batch_size=None, generator=torch.Generator())

    def check_batches(self) -> int:
        """Count the batches of an epoch, see `TrainOptions.batches`."""
        return self.options.batches(self._place()[1])

    def workers(self) -> int:
        """Count reading processes: a GPU's share of the cores, at most 12; beside a CPU at most one."""
        if self.options.data.loader_workers != "auto":
            return self.options.data.loader_workers
        cores, gpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, self._gpus()
        return min(12, max(1, cores // gpus)) if gpus else int(cores > 2)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, from 0, and the batches of it that each of `ranks` processes has been trained on."""
        assert self.trainer is not None  # which asks
        loop, epochs = self.trainer.fit_loop, cast(Any, self.trainer.fit_loop.epoch_progress.current)
        # Lightning keeps the batches of a finished epoch until the next one has begun.
        batches = loop.epoch_loop.batch_progress.current.completed if epochs.started > epochs.processed else 0
        return {"epoch": epochs.processed, "batches": batches, "ranks": self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on within an epoch, on as many processes or on others that come to the same patch.

        Raises:
            KitsError: others do not.
        """
        assert self.trainer is not None
        done = batches_done(state_dict, self.trainer.world_size, self.options)
        self._trained_on = {state_dict["epoch"]: done * self.options.sampling.batch_size}

    def _place(self) -> tuple[int, int]:
        """Return the number of this process, from 0, and how many train together."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _gpus(self) -> int:
        """Count this machine's GPUs that train."""
        if self.trainer is None or self.trainer.strategy.root_device.type != "cuda":
            return 0
        return self.trainer.num_devices
