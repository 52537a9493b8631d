"""One data module for both stages: patches for training, whole cases for validation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Sampler

from kits.data.datasets import CachedCase, CoarseWindows, RoiPatches, WholeCases
from kits.data.index import read_split
from kits.errors import KitsError

PATCHES = {"coarse": CoarseWindows, "fine": RoiPatches}


class EpochSampler(Sampler[int]):
    """Positions that go on from epoch to epoch, so that no epoch repeats another's patches."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.length, (self.epoch + 1) * self.length))


class KitsDataModule:
    """The cases of a prepared cache, split as `kits.prepare` split them.

    It serves loaders and knows nothing of Lightning, which lives a floor above.

    Args:
        config: the plain training configuration (`stage`, `data`, `sampling`, `seed`).

    Raises:
        KitsError: the cache has not been prepared, or was prepared with other settings.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.stage: str = config["stage"]
        self.data: dict[str, Any] = config["data"]
        self.sampling: dict[str, Any] = config["sampling"]
        self.seed: int = config["seed"]
        cache = Path(self.data["cache"])
        settings = {key: self.data[key] for key in ("coarse_size", "roi", "classes")}
        index = read_index(cache, settings)
        self.data_hash: str = index["data_hash"]
        self.split = {part: read_split(cache / "splits.json", part) for part in ("train", "validation")}
        self.cases = {part: [CachedCase(cache, index["cases"][case]) for case in ids] for part, ids in self.split.items()}

    def train_dataloader(self) -> DataLoader:
        """Batches of `image` (B, 1, D, H, W) in [-1, 1] and `label` (B, D, H, W)."""
        patches = PATCHES[self.stage](self.cases["train"], self.data, self.sampling, self.seed)
        workers = self.data["loader_workers"]
        return DataLoader(
            patches,
            batch_size=self.sampling["batch_size"],
            sampler=EpochSampler(len(patches)),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader:
        """One `CachedCase` at a time."""
        return DataLoader(WholeCases(self.cases["validation"]), batch_size=None)


def read_index(cache: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The index of a prepared cache.

    Raises:
        KitsError: there is none, or its settings are not these.
    """
    path = cache / "index.json"
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise KitsError(f"data.cache={cache}: not prepared; run python -m kits.prepare with the same data.cache") from error
    if index["settings"] != settings:
        raise KitsError(
            f"data.cache={cache}: was prepared with {index['settings']}, this run asks for {settings};"
            " run kits.prepare again with this configuration"
        )
    return dict(index)
