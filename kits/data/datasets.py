"""Patches to train on and whole cases to validate on, read from the cache's memory maps."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kits.config.schema.dataset import Data
from kits.config.schema.stage import CoarseSampling, FineSampling
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND
from kits.core.parallel import allow_long_folder, end_with_parent, safely_started
from kits.data.cached_case import CachedCase
from kits.data.transforms import Augmentation
from kits.volume import Spacing, plane_grid
from kits.volume.rois import jitter

# Beside the seed and the position: augmentation draws from a stream of its own, so that it moves no patch.
VARIATION = 2
# Slices that are searched for foreground.
TRIES = 20


def allow_open_maps(cases: int) -> None:
    """Let this process and its workers keep the maps of so many cases open.

    Each map holds a file descriptor, of which systems allow 256 or 1024 by default. Mapping a file anew for every patch would
    cost a page fault for every page of it.
    """
    wanted, (soft, hard) = 4 * cases + 256, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


@dataclass(frozen=True)
class UnreadPatch:
    """A patch before it is read: volume (z, y, x), labels, first voxel (maybe outside), spacing in mm."""

    image: np.ndarray
    label: np.ndarray
    start: np.ndarray
    spacing: Spacing


SamplingT = TypeVar("SamplingT", CoarseSampling, FineSampling)


class Patches(Dataset[dict[str, Tensor]], Generic[SamplingT]):
    """Random patches, so many an epoch; patch i of epoch e depends on the seed alone.

    The number of workers does not matter. An item holds `image` float32 (1, D, H, W) in [-1, 1] and `label` uint8 (D, H, W).
    """

    def __init__(self, cases: list[CachedCase], data: Data, sampling: SamplingT, seed: int) -> None:
        self.cases = cases
        self.sampling: SamplingT = sampling
        self.patch = sampling.patch
        self.classes = len(data.classes)
        self.seed = seed
        self.augmentation = Augmentation(data.augmentation, self.patch, data.window_hu)

    def __len__(self) -> int:
        return self.sampling.patches_per_epoch

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """Return item `position`, counted over all epochs (see EpochSampler)."""
        case = self.choose_case(position)
        place = self.draw(case, np.random.default_rng([self.seed, position]))
        start = (int(place.start[0]), int(place.start[1]), int(place.start[2]))
        image, label = self.augmentation(place.image, place.label, start, place.spacing, [self.seed, position, VARIATION])
        if label.max() >= self.classes:
            raise case.damaged("label", "has labels that are no class")
        return {"image": image[None], "label": label}

    def choose_case(self, position: int) -> CachedCase:
        """Choose an item's case: a new random order each round, so that each is drawn equally often."""
        turn, place = divmod(position, len(self.cases))
        return self.cases[np.random.default_rng([self.seed, turn, 1]).permutation(len(self.cases))[place]]

    def draw(self, case: CachedCase, rng: np.random.Generator) -> UnreadPatch:
        """Draw where one patch is."""
        raise NotImplementedError


class CoarseWindows(Patches[CoarseSampling]):
    """Windows along z of the coarse volume, most of them around the kidneys."""

    def draw(self, case: CachedCase, rng: np.random.Generator) -> UnreadPatch:
        depth, slices = self.patch[0], len(case.coarse_image)
        if rng.random() < self.sampling.foreground:
            first, last = case.kidney_slices
            centre = int(rng.integers(first, last + 1))
        else:
            centre = int(rng.integers(slices))
        start = np.clip(centre - depth // 2, 0, max(0, slices - depth))
        spacing = plane_grid(case.shape, case.coarse_image.shape[1], slices).spacing(case.spacing)
        return UnreadPatch(case.coarse_image, case.coarse_label, np.array([start, 0, 0]), spacing)


class RoiPatches(Patches[FineSampling]):
    """Patches of the ROIs at original resolution, from true boxes whose faces are jittered.

    Shares around a voxel of tumor and around one of kidney or tumor come first. Of the rest a share comes from around the boxes:
    without it the network has never seen a psoas or a spleen whole, and calls them tumor as soon as a predicted box shows one.
    """

    def draw(self, case: CachedCase, rng: np.random.Generator) -> UnreadPatch:
        return UnreadPatch(case.image, case.label, self._start(case, rng), case.spacing)

    def _start(self, case: CachedCase, rng: np.random.Generator) -> np.ndarray:
        chance = rng.random()
        if len(case.tumor_points) and chance < self.sampling.tumor:
            return self._around(case.tumor_points[rng.integers(len(case.tumor_points))], rng)
        if 1 - chance < self.sampling.kidney:
            return self._around(foreground_voxel(case, rng), rng)
        box = case.boxes[rng.integers(len(case.boxes))]
        if rng.random() < self.sampling.around:
            box = box.grow_mm(self.sampling.around_mm, case.spacing, case.shape)
        else:
            box = jitter(box, rng, self.sampling.jitter_mm, case.spacing, case.shape)
        # Within the box, or centred on it along axes where the box is smaller than the patch.
        start, room = np.array(box.start), np.array(box.shape) - np.array(self.patch)
        return np.where(room > 0, start + rng.integers(0, np.maximum(room, 0) + 1), start + room // 2)

    def _around(self, voxel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a start that puts the voxel in the middle half of the patch."""
        patch = np.array(self.patch)
        return voxel - patch // 2 + rng.integers(-(patch // 4), patch // 4 + 1)


def foreground_voxel(case: CachedCase, rng: np.random.Generator) -> np.ndarray:
    """Draw a voxel (z, y, x) of kidney or tumor in an ROI; each slice with some is as likely.

    Slices of the box are read until one has some: nearly every one has, since a box is tight around a connected region. The
    middle of the box stands in where a box from elsewhere holds next to nothing.
    """
    label = case.label
    box = case.boxes[rng.integers(len(case.boxes))]
    planes, rows, columns = box.slices
    for _ in range(TRIES):
        z = int(rng.integers(planes.start, planes.stop))
        found = np.argwhere(label[z, rows, columns] > BACKGROUND)
        if len(found):
            row, column = found[rng.integers(len(found))]
            return np.array([z, rows.start + row, columns.start + column])
    return (np.array(box.start) + np.array(box.stop)) // 2


class PatchLoader(DataLoader[dict[str, Tensor]]):
    """Batches of patches, their labels uint8 until the loss widens them on its device.

    Attributes:
        waited: seconds that batches have been waited for so far.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        began = time.perf_counter()
        for batch in self._batches():
            self.waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        try:
            yield from super().__iter__()
        except KitsError as error:  # torch puts a worker's traceback before it, whose line breaks `KitsError` spells out
            text = str(error).rpartition(f"{KitsError.__module__}.{KitsError.__name__}: ")[2]
            raise KitsError(text.removesuffix("\\n")) from None


def worker_context(patches: Patches[Any]) -> BaseContext:
    """Return how a loader's processes start: forked from a server that has imported torch and MONAI.

    Importing them takes seconds of processor time, so it is done once and not by every worker. The server starts empty, and so
    shares no threads with this process, as plain forks would.
    """
    allow_long_folder()
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "monai.transforms"] if patches.augmentation.options else ["torch"])
    with safely_started():
        forkserver.ensure_running()
    return context


def outlive_signals(worker: int) -> None:
    """Let a loader's process ignore what asks a training to stop.

    Ctrl-C and a cluster's SIGTERM reach every process of a job, and the step that is under way still needs its patches. Loaders
    end their workers themselves; a killed training cannot, and what torch's own workers watch is the process that forked them,
    which is not the training but the server.
    """
    end_with_parent()
    for asking in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(asking, signal.SIG_IGN)
