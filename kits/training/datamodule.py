"""One data module for both stages: patches for training, whole cases for validation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from kits.config import require
from kits.core.errors import KitsError
from kits.core.plain_files import read_json
from kits.core.sharding import share
from kits.data.cache import FORMAT, cache_settings, digest
from kits.data.datasets import (
    CachedCase,
    CoarseWindows,
    PatchLoader,
    RoiPatches,
    WholeCases,
    allow_open_maps,
    outlive_signals,
    worker_context,
)
from kits.data.records import RECORD, read_record
from kits.data.roi_boxes import with_boxes
from kits.data.splits import read_split, some_of

PATCHES = {"coarse": CoarseWindows, "fine": RoiPatches}
INDEX = {
    "format": int,
    "settings": {str: Any},
    "data_hash": str,
    "cases": {str: {**RECORD, "id": str, "key": str, "folder": str}},
}


class EpochSampler(Sampler[int]):
    """Positions that go on from epoch to epoch, so that no epoch repeats another's patches.

    Of `ranks` processes each takes every `ranks`-th position, so their batches of a step together are those that one process
    with the batches of them all would have drawn. A rest that does not go round is left out: all ranks take as many steps.

    Args:
        length: positions of an epoch, of all processes together.
        epoch: the first epoch.
        done: positions of the first epoch that this process of an interrupted run has been trained on.
    """

    def __init__(self, length: int, rank: int = 0, ranks: int = 1, *, epoch: int = 0, done: int = 0) -> None:
        self.length, self.rank, self.ranks = length, rank, ranks
        self.epoch = epoch
        self.begun = {epoch: done}

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.ranks

    def __iter__(self) -> Iterator[int]:
        first, done = self.epoch * self.length, self.begun.get(self.epoch, 0)
        return iter(range(first + self.rank + done * self.ranks, first + len(self) * self.ranks, self.ranks))


class KitsDataModule:
    """The cases of a prepared cache, split as `kits.prepare` split them.

    It serves loaders and knows nothing of Lightning, which lives a floor above. The loaders have a generator of their own: from
    the global one they would draw a seed each time they begin, and a resumed run begins them at other places.

    Args:
        config: the plain training configuration (`stage`, `data`, `sampling`, `seed`, and `fold` where there are folds).

    Raises:
        KitsError: the cache has not been prepared, or was prepared with other settings; its split is not of its cases, of
            another kind than `data.split` asks for, or has no such fold; `data.overfit` is no training case; `data.roi` is not
            known, or its boxes are refused.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.stage: str = config["stage"]
        self.data: dict[str, Any] = config["data"]
        self.sampling: dict[str, Any] = config["sampling"]
        self.seed: int = config["seed"]
        cache = Path(self.data["cache"])
        index = read_index(cache, cache_settings(self.data))
        self.data_hash: str = index["data_hash"]
        self.split = split_of(cache, index["cases"], self.data["split"], config.get("fold"))
        if self.data_hash != digest([record["key"] for record in index["cases"].values()]):
            raise KitsError(f"{cache / 'index.json'}: damaged or edited (its data_hash); run kits.prepare again")
        self.split["train"] = some_of(self.split["train"], self.data["train_cases"], self.seed)
        if self.data["overfit"] is not None:
            self.split = one_case(self.split, self.data["overfit"])
        records = index["cases"]
        if self.stage == "fine" and self.data["roi"] == "oof":
            records = with_boxes(records, Path(require(self.data["boxes"], "data.boxes", "add data.boxes=DIR/boxes.json")))
            # Jitter makes true boxes like those that coarse networks predict; these are such boxes.
            self.sampling = {**self.sampling, "jitter_mm": 0}
        self.cases = {part: [CachedCase(cache, records[case]) for case in ids] for part, ids in self.split.items()}
        allow_open_maps(len(records))

    def train_dataloader(
        self, rank: int = 0, ranks: int = 1, *, epoch: int = 0, batches: int = 0, gpus: int = 0
    ) -> DataLoader[dict[str, Tensor]]:
        """Batches of `image` (B, 1, D, H, W) in [-1, 1] and `label` (B, D, H, W): the share of process `rank` of `ranks`.

        Args:
            epoch: the first epoch.
            batches: those of it that an interrupted run has been trained on.
            gpus: how many of this machine's train; batches are then in memory that a GPU can fetch from.

        Raises:
            KitsError: an epoch has no batch for every process.
        """
        asked, batch = self.sampling["patches_per_epoch"], ranks * self.sampling["batch_size"]
        if asked < batch:
            raise KitsError(
                f"sampling.patches_per_epoch={asked}: fewer than one step takes, {batch} with sampling.batch_size="
                f"{self.sampling['batch_size']} of {ranks} process{'es' * (ranks > 1)}; give at least {batch}"
            )
        patches = PATCHES[self.stage](self.cases["train"], self.data, self.sampling, self.seed)
        asked_workers = self.data["loader_workers"]
        workers = own_workers(gpus) if asked_workers == "auto" else asked_workers
        return PatchLoader(
            patches,
            batch_size=self.sampling["batch_size"],
            sampler=EpochSampler(len(patches), rank, ranks, epoch=epoch, done=batches * self.sampling["batch_size"]),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=gpus > 0,
            multiprocessing_context=worker_context(patches) if workers else None,
            worker_init_fn=outlive_signals if workers else None,
            generator=torch.Generator(),
            drop_last=True,
        )

    def val_dataloader(self, rank: int = 0, ranks: int = 1) -> DataLoader:
        """One `CachedCase` at a time: the share of process `rank` of `ranks`, or None once where there are too few for all.

        None because Lightning leaves out the validation of a process that has no batch, and the others would wait for its scores.
        """
        cases = self.cases["validation"]
        own = share(cases, rank, ranks, [prod(case.shape) for case in cases])
        return DataLoader(WholeCases(own or [None]), batch_size=None, generator=torch.Generator())


def own_workers(gpus: int) -> int:
    """How many processes read patches: a GPU's share of the cores, at most 12; next to a training on the CPU at most one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(12, max(1, cores // gpus)) if gpus else int(cores > 2)


def split_of(cache: Path, cases: Iterable[str], settings: dict[str, Any] | None, fold: int | None) -> dict[str, list[str]]:
    """The ids of `train` and `validation` in a prepared cache.

    Args:
        cases: the ids of its index.
        settings: the group `split` where the run chooses one, which the file must then agree with.

    Raises:
        KitsError: the split is not of these cases or not made with these settings, or has no such fold.
    """
    split = read_split(cache / "splits.json")
    split.check_cases(cases, "run kits.prepare again")
    if settings is not None:
        split.check_settings(settings)
    return {subset: split.subset(subset, fold) for subset in ("train", "validation")}


def one_case(split: dict[str, list[str]], case: str) -> dict[str, list[str]]:
    """A split of one training case, to learn and to be validated on; `first` names none.

    Raises:
        KitsError: it is no training case of this split.
    """
    train = split["train"]
    if case != "first" and case not in train:
        raise KitsError(f"data.overfit={case}: no training case of this split; take one, e.g. {train[0]}, or first")
    chosen = [train[0] if case == "first" else case]
    return {"train": chosen, "validation": chosen}


def read_index(cache: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The index of a prepared cache.

    Raises:
        KitsError: there is none, its settings are not these, another version made it, or a case in it is not whole.
    """
    path = cache / "index.json"
    if not path.is_file():
        raise KitsError(f"data.cache={cache}: not prepared; run python -m kits.prepare with the same data.cache")
    index: dict[str, Any] = read_json(path, INDEX, "the index of a cache", "run kits.prepare again")
    if index["settings"] != settings:
        raise KitsError(
            f"data.cache={cache}: was prepared with {index['settings']}, this run asks for {settings};"
            " run kits.prepare again with this configuration"
        )
    if index["format"] != FORMAT:
        raise KitsError(f"data.cache={cache}: was prepared by another version; run kits.prepare again")
    for case, record in index["cases"].items():
        own = read_record(cache / record["folder"])
        if own is None:
            raise KitsError(f"data.cache={cache}: {case} is not whole; run kits.prepare again")
        if case != record["id"] or any(record[key] != own[key] for key in RECORD):
            raise KitsError(f"{path}: damaged or edited (what it says of {case}); run kits.prepare again")
    return index
