"""A whole configuration of kits.train: what its groups must have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kits.config.schema.augmentation import Augmentation
from kits.config.schema.base import Fraction, Index, Length, Options, PathText, Seed, Switch, Text, check_output, refuse, text
from kits.config.schema.dataset import Data, Folds, SplitOptions, check_outputs
from kits.config.schema.loss import Loss
from kits.config.schema.model import FineNetOptions, OwnNetworkOptions, Unet3dOptions
from kits.config.schema.optimizer import Constant, Optimizer, Plateau, Scheduler
from kits.config.schema.stage import (
    CoarseInference,
    CoarseRoi,
    CoarseSampling,
    FineInference,
    FineRoi,
    FineSampling,
    Postprocess,
)
from kits.config.schema.trainer_options import Callbacks, Logger, Trainer
from kits.core.errors import KitsError

# What learns in a staged training: each source alone, then the fusion with the sources as they are, then everything.
PHASES = ("sources", "fusion", "all")
MOST_EPOCHS = 10_000  # of a training that a message may advise
# Where a source's weights come from but files.
WEIGHTS = (None, "imagenet", "hub")


class TrainOptions(Options):
    """Options of both stages."""

    data: Data
    model: Any
    sampling: Any
    split: SplitOptions | None = None
    augmentation: Augmentation
    loss: Loss
    optimizer: Optimizer
    scheduler: Scheduler
    trainer: Trainer
    callbacks: Callbacks
    logger: Logger
    debug: Text
    fold: Index | None
    run_dir: PathText
    seed: Seed
    overwrite: Switch
    resume: PathText | None
    init: PathText | None
    freeze_epochs: Index

    @model_validator(mode="after")
    def _groups_go_together(self) -> TrainOptions:
        """Refuse a fold without folds, boxes that nothing reads, and a plateau that is never waited for."""
        self._check_fold()
        if self.trainer.ranks is not None:
            self.batches(self.trainer.ranks)
        if self.data.roi != "oof" and self.data.boxes is not None:
            raise refuse("data.boxes", self.data.boxes, "is read with data.roi=oof only; add that, or leave it out")
        if self.freeze_epochs >= self.trainer.max_epochs:
            what = f"the encoders would never learn, trainer.max_epochs={self.trainer.max_epochs}; give fewer"
            raise refuse("freeze_epochs", self.freeze_epochs, what)
        if self.freeze_epochs and isinstance(self.model, OwnNetworkOptions):
            raise refuse("freeze_epochs", self.freeze_epochs, "model=own has no encoder that is known; leave it out")
        factor = None if isinstance(self.optimizer, dict) else self.optimizer.init_factor
        if self.init is None and factor not in (None, 1):
            raise refuse("optimizer.init_factor", factor, "is for what init=RUN_FOLDER gives; add that, or leave it out")
        if isinstance(self.scheduler, Plateau) and not self.trainer.validates:
            raise refuse("scheduler.name", "plateau", "waits for validation scores, trainer.limit_val_batches=0; take another")
        stopping = self.callbacks.early_stopping.patience
        if isinstance(self.scheduler, Plateau) and self.scheduler.patience >= stopping:
            what = f"the training stops first, callbacks.early_stopping.patience={stopping}"
            more = "give a smaller one, or a larger callbacks.early_stopping.patience"
            raise refuse("scheduler.patience", self.scheduler.patience, f"{what}; {more}")
        return self

    @property
    def scheduled(self) -> bool:
        """True where the learning rate of a step depends on how many steps the training has."""
        if isinstance(self.scheduler, Plateau | dict):  # the user's own has its lengths in its arguments
            return False
        return not isinstance(self.scheduler, Constant) or self.scheduler.warmup > 0

    def batches(self, ranks: int) -> int:
        """Count the batches of an epoch, which are as many in each process.

        Raises:
            KitsError: there is none for every process, or the trainer's lengths do not fit them.
        """
        asked, size = self.sampling.patches_per_epoch, self.sampling.batch_size
        if asked < ranks * size:
            of = f"sampling.batch_size={size} of {ranks} process{'es' * (ranks > 1)}"
            what = f"fewer than one step takes, {ranks * size} with {of}; give at least {ranks * size}"
            raise refuse("sampling.patches_per_epoch", asked, what)
        self.trainer.check_epoch(asked // ranks // size)
        return int(asked // ranks // size)

    def _check_fold(self) -> None:
        """Refuse a fold where the split has none, and folds without one; without `split` the cache decides."""
        split, fold = self.data.split, self.fold
        if isinstance(split, Folds):
            if fold is None:
                raise KitsError(f"fold: no value given; split=folds needs one of 0 to {split.k - 1}")
            if fold >= split.k:
                raise refuse("fold", fold, f"split.k={split.k} folds are 0 to {split.k - 1}")
        elif split is not None and fold is not None:
            raise refuse("fold", fold, f"split={split.kind} has no folds; leave fold out, or take split=folds")

    def check_weights_of_regions(self, regions: int, names: str) -> None:
        """Refuse `loss.class_weights` that are not one for each region that the loss scores."""
        weights = None if isinstance(self.loss, dict) else self.loss.class_weights
        if weights is not None and (len(weights) != regions or not sum(weights)):
            raise refuse("loss.class_weights", [f"{one:g}" for one in weights], f"give {regions} ({names}), not all of them 0")


class Coarse(TrainOptions):
    """conf/stage/coarse.yaml with its groups."""

    stage: Literal["coarse"]
    model: Annotated[Unet3dOptions | OwnNetworkOptions, Field(discriminator="name")]
    sampling: CoarseSampling
    inference: CoarseInference
    roi: CoarseRoi

    @model_validator(mode="after")
    def _stage_is_whole(self) -> Coarse:
        """Refuse what the coarse stage cannot train on: it reads whole slices, and has one class."""
        if self.model.classes != 1:
            raise refuse("model.classes", self.model.classes, "the coarse network has one, kidney and tumor together; give 1")
        if self.data.roi == "oof":
            raise KitsError("data.roi=oof: the coarse stage reads no ROIs; leave it out")
        self.check_weights_of_regions(1, "kidney and tumor together")
        size, (depth, *plane), multiple = self.data.coarse_size, self.sampling.patch, self.model.in_plane_multiple
        if size % multiple:
            near = " and ".join(map(str, nearest_multiples(size, multiple)))
            what = f"the coarse network needs a multiple of {multiple}; the nearest are {near}"
            raise refuse("data.coarse_size", size, f"{what} (then run kits.prepare again)")
        if plane != [size, size]:
            what = f"the coarse stage reads whole slices, and data.coarse_size={size}"
            raise refuse("sampling.patch", self.sampling.patch, f"{what}; give sampling.patch={text([depth, size, size])}")
        return self


class Fine(TrainOptions):
    """conf/stage/fine.yaml with its groups."""

    stage: Literal["fine"]
    model: Annotated[FineNetOptions | OwnNetworkOptions, Field(discriminator="name")]
    sampling: FineSampling
    inference: FineInference
    roi: FineRoi
    training: Literal["parallel", "staged"]
    parallel_weight: Length
    staged_shares: tuple[Fraction, Fraction]
    postprocess: Postprocess

    @model_validator(mode="after")
    def _stage_is_whole(self) -> Fine:
        """Refuse a patch that no known encoder takes, and empty phases."""
        check_outputs(self.model.classes, self.data.classes)
        if self.data.roi == "oof" and self.data.boxes is None:
            raise KitsError("data.boxes: no value given; data.roi=oof needs data.boxes=DIR/boxes.json, from kits.boxes")
        over = "classes" if isinstance(self.loss, dict) else self.loss.over
        foreground = max(1, self.model.classes - 1)
        regions = {"classes": foreground, "foreground": 1, "both": foreground + 1}[over]
        self.check_weights_of_regions(regions, "kidney and tumor together" if regions == 1 else f"loss.over={over}")
        (depth, *plane), multiple = self.sampling.patch, self.model.in_plane_multiple
        if any(size % multiple for size in plane):
            near = [nearest_multiples(size, multiple) for size in plane]
            smaller, larger = ([depth, *(pair[end] for pair in near)] for end in (0, -1))
            own = isinstance(self.model, OwnNetworkOptions)
            who = "the network's model.in_plane_multiple needs" if own else "the encoders' scales (model.out_indices) need"
            what = f"{who} multiples of {multiple} in-plane"
            raise refuse("sampling.patch", self.sampling.patch, f"{what}; the nearest are {text(smaller)} and {text(larger)}")
        if self.training == "staged" and isinstance(self.model, OwnNetworkOptions):
            raise KitsError("training=staged: model=own has no sources to train alone; leave it out")
        if self.training == "staged" and self.trainer.compile:
            raise KitsError("trainer.compile=true: not with training=staged, whose phases are three networks; leave it out")
        if self.training == "staged":
            self._check_phases()
        return self

    def _check_phases(self) -> None:
        """Refuse a phase of a staged training without anything to learn or an epoch to do it in."""
        shares, epochs = self.staged_shares, self.trainer.max_epochs
        if sum(shares) >= 1:
            raise refuse("staged_shares", shares, "give the shares of the sources and of the fusion, together less than 1")
        if not every_phase(epochs, shares):
            enough = next((more for more in range(epochs, MOST_EPOCHS) if every_phase(more, shares)), None)
            if enough is None:
                what = f"a phase has no epoch even of {max(epochs, MOST_EPOCHS)}; give more, or 0 to leave the phase out"
                raise refuse("staged_shares", shares, what)
            what = f"too few for the phases of training=staged with staged_shares={text(shares)}"
            raise refuse("trainer.max_epochs", epochs, f"{what}; give at least {enough}")


Train = Annotated[Coarse | Fine, Field(discriminator="stage")]


def check_files(train: Coarse | Fine, *, prepared: bool) -> None:
    """Refuse what a training reads and is not there, and a run folder that cannot be.

    A checkpoint is used without them, so that no model of the schema looks.
    """
    data = train.data
    check_output("run_dir", train.run_dir)
    if train.init is not None and not train.resume:
        path = Path(train.init)
        if not (path / "best.ckpt" if path.is_dir() else path).is_file():
            raise refuse("init", train.init, "no such checkpoint; give a run folder with best.ckpt, or a checkpoint")
    if prepared and data.boxes is not None and not Path(data.boxes).is_file():
        raise refuse("data.boxes", data.boxes, "no such file; kits.boxes writes boxes.json")
    if isinstance(train, Fine):
        for position, source in enumerate(train.model.sources if isinstance(train.model, FineNetOptions) else ()):
            if source.weights not in WEIGHTS and not Path(source.weights).is_file():
                what = "no such file; give imagenet, hub, null or a .safetensors or .pth file"
                raise refuse(f"model.sources[{position}].weights", source.weights, what)
    # Last: what is wrong with the configuration itself is told on a machine without the data too.
    if prepared and not (Path(data.cache) / "index.json").is_file():
        raise refuse("data.cache", data.cache, "not prepared; run python -m kits.prepare with the same data.cache")


def nearest_multiples(size: int, multiple: int) -> list[int]:
    """Return the next smaller and the next larger multiple, or the size itself."""
    return sorted({max(multiple, size // multiple * multiple), math.ceil(size / multiple) * multiple})


def phase_at(epoch: int, epochs: int, shares: Sequence[float]) -> str:
    """Return the phase in `epoch` (from 0) of `epochs`, two `shares` of which are for the first phases."""
    return PHASES[sum(epoch >= end for end in phase_ends(epochs, shares))]


def phase_ends(epochs: int, shares: Sequence[float]) -> tuple[int, int]:
    """Count the epochs after which the first and the second phase end."""
    return round(epochs * shares[0]), round(epochs * sum(shares))


def every_phase(epochs: int, shares: Sequence[float]) -> bool:
    """Tell whether each phase with a share has an epoch."""
    ends = (0, *phase_ends(epochs, shares), epochs)
    return all(begin < end for share, begin, end in zip((*shares, 1), ends, ends[1:], strict=False) if share)
