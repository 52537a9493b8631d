"""The two stages as LightningModules: what they learn from and how a validation case is scored."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any, Generic, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from kits.config import plain
from kits.config.schema.training import Coarse, Fine, phase_at
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, KIDNEY, REGIONS, regions_of
from kits.core.ranks import gather
from kits.data.datasets import CachedCase
from kits.inference.coarse import coarse_mask, rois_of
from kits.inference.devices import TRAINED, Fallback
from kits.inference.fine import BoxReader, paste_labels, read_boxes
from kits.inference.members import Members
from kits.metrics import case_confusion, dice, scores_from_confusion
from kits.models import build_network
from kits.models.memory import keep_freed_memory
from kits.models.settings import FORMAT
from kits.reporting.scene import Scene
from kits.tracking.names import LOSS, loss_name, score_name
from kits.training.datamodule import KitsDataModule
from kits.training.losses import build_loss, deep_supervision, parallel_loss
from kits.training.optimizers import build_optimizer, build_scheduler, clock_of
from kits.volume import plane_grid
from kits.volume.rois import coverage


@dataclass(frozen=True)
class Examined:
    """One validation case, segmented and scored.

    Attributes:
        scene: its scores, and the volumes on the grid where it is scored.
        confusion: voxels (4, 4) by true and predicted label, see `kits.metrics.case_confusion`.
    """

    scene: Scene
    confusion: np.ndarray


OptionsT = TypeVar("OptionsT", Coarse, Fine)


class StageModule(pl.LightningModule, Generic[OptionsT]):
    """The network of a stage, its loss, its optimizer and its validation by cases.

    Args:
        options: of the training. They travel in the checkpoint as plain containers, which are enough to predict from.
        pretrained: load the weights that the options name; false where a checkpoint brings its own.
    """

    def __init__(self, options: OptionsT, *, pretrained: bool) -> None:
        super().__init__()
        self.options: OptionsT = options
        self.save_hyperparameters({**plain(options), "kits_format": FORMAT})
        self.network = build_network(options.model, pretrained=pretrained)
        self.loss = build_loss(options.loss)
        self._scores: dict[str, dict[str, float]] = {}  # of this process's cases, by id
        self._fallback: Fallback | None = None

    def setup(self, stage: str) -> None:
        """Note the training cases, of which no checkpoint may ever give out-of-fold boxes."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and isinstance(data, KitsDataModule):
            parent = self.hparams.get("parent", {})
            self.hparams["trained_on"] = list(dict.fromkeys(data.split["train"] + parent.get("trained_on", [])))

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer: Adam in the paper (section 3), other choices by name."""
        return build_optimizer(self.options.optimizer, self.network, self.hparams.get("parent", {}).get("new"))

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule, a constant rate in the paper."""
        optimizer = self.build_optimizer()
        steps, epochs = self.trainer.estimated_stepping_batches, self.trainer.check_val_every_n_epoch or 1
        schedule = build_scheduler(self.options.scheduler, optimizer, steps, epochs, clock_of(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_fit_start(self) -> None:
        """Check that all processes have one precision, and use large blocks of CPU memory again.

        Raises:
            KitsError: processes on unlike machines have chosen another precision each.
        """
        chosen = set(gather({str(self.global_rank): str(self.trainer.precision)}).values())
        if len(chosen) > 1:
            raise KitsError(f"trainer.precision=auto: unlike machines choose {' and '.join(sorted(chosen))}; give one of them")
        if self.device.type == "cpu":
            keep_freed_memory()

    def log_losses(self, parts: dict[str, Tensor], batch_size: int) -> Tensor:
        """Log the total and its parts, means over all processes; return the total.

        Only logged steps do anything: processes exchange the values, as one tensor, and the question makes a GPU wait.

        Raises:
            KitsError: the total is no number, on whichever process: all end, where the others would wait for the one.
        """
        total = parts["total"]
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            means = self.trainer.strategy.reduce(torch.stack([value.detach() for value in parts.values()]), reduce_op="mean")
            logged = dict(zip(parts, means, strict=True))
            if not torch.isfinite(logged["total"]):
                self.refuse(logged["total"])
            self.log(LOSS, logged.pop("total"), prog_bar=True, batch_size=batch_size)
            self.log_dict({loss_name(part): value for part, value in logged.items()}, batch_size=batch_size)
        return total

    def refuse(self, total: Tensor) -> None:
        """Raise KitsError for a loss that is no number, unless float16's scaler mends that.

        It halves its scale each time, so one that has gone below 1 has left out nothing but steps for long.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None or scaler.get_scale() < 1:
            raise KitsError(
                f"train/loss: {total.item()} at step {self.global_step}, and no later step would mend it;"
                " take trainer.precision=32-true, a lower optimizer.lr or model.norm=group"
            )

    def sparing(self) -> Fallback:
        """Take smaller windows to a validation's end where it lacks memory, on the same device."""
        if self._fallback is None:
            window = self.options.inference.window
            self._fallback = Fallback([self.network], self.device, window, self.options.stage, stays=True)
        return self._fallback

    def members(self) -> Members:
        """Return the network in the precision that it is trained in."""
        return Members([self.network], TRAINED.get(self.options.trainer.precision, "32"), self.device.type)

    def validation_step(self, case: CachedCase | None, index: int) -> Any:  # Examined, or None
        """Segment and score one whole case; callbacks get what was scored, to draw and to count it.

        Of None, where there are more processes than cases, there is nothing. Lightning calls this through
        DistributedDataParallel, which in the first call of a validation gives every process the running statistics of the first
        one: a process without a case has to take part in that.
        """
        if case is None:
            return None
        examined = self.examine(case)
        self._scores[case.id] = examined.scene.scores
        return examined

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the validation cases of every score; `val/score` chooses the best checkpoint.

        Every process logs the same means, so that all agree on the best checkpoint and on when to stop.
        """
        scores = gather(self._scores)
        for name in next(iter(scores.values())):
            mean = fmean(of_case[name] for of_case in scores.values())
            # Lightning multiplies by the batch size and divides by it again: by 1, without rounding.
            self.log(score_name(name), mean, prog_bar=name == "score", batch_size=1)
        self._scores.clear()
        warnings = gather({str(self.global_rank): self._fallback.warnings if self._fallback else []})
        for warning in [text for texts in warnings.values() for text in texts]:
            self.print(f"validation: {warning}; this epoch's scores are those of smaller windows")
        self._fallback = None

    def examine(self, case: CachedCase) -> Examined:
        """Segment and score one case; the higher its `score`, the better."""
        raise NotImplementedError


class CoarseModule(StageModule[Coarse]):
    """Stage one: kidney and tumor together against the rest, on the coarse grid."""

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Compute the loss of a batch of windows."""
        pyramid = self.network.training_logits(batch["image"])  # type: ignore[operator]
        return self.log_losses(deep_supervision(self.loss, pyramid, batch["label"]), len(batch["image"]))

    def examine(self, case: CachedCase) -> Examined:
        """Measure Dice and recall of the mask, and how much of kidney and tumor its ROIs cover."""
        mask = coarse_mask(
            self.members(),
            case.coarse_image,
            window_hu=self.options.data.window_hu,
            inference=self.options.inference,
            fallback=self.sparing(),
        )
        truth = np.asarray(case.coarse_label)
        grid = plane_grid(case.shape, case.coarse_image.shape[1], len(case.coarse_image))
        boxes = rois_of(mask, grid, case.spacing, self.options.roi, case.coarse_image)
        found = truth > BACKGROUND
        overlap = dice(mask, found)
        scores = {"dice": overlap, "recall": float((mask & found).sum() / max(1, found.sum()))}
        for region, values in REGIONS.items():
            inside = np.isin(truth, values)
            scores[f"roi_{region}"] = coverage(boxes, inside) if inside.any() else 1.0
        # Ours: Dice alone would take a mask whose ROIs miss a kidney, coverage alone one whose ROI is the whole body.
        scores["score"] = (overlap + scores["roi_kidney"]) / 2
        scores["roi_share"] = sum(float(np.prod(box.shape)) for box in boxes) / truth.size
        # The mask takes kidney and tumor for one, and so counts as kidney.
        labels = mask.astype(np.uint8) * KIDNEY
        scene = Scene(case.id, case.coarse_image, labels, truth, grid.spacing(case.spacing), scores)
        return Examined(scene, case_confusion(labels, truth))


class FineModule(StageModule[Fine]):
    """Stage two: every class of the data set inside the ROIs, all sources trained in one pass."""

    def on_train_epoch_start(self) -> None:
        """Choose what learns in a staged training; early stopping counts in the last phase only."""
        if self.options.training == "staged":
            phase = phase_at(self.current_epoch, int(self.trainer.max_epochs or 0), self.options.staged_shares)
            self.network.set_phase(phase)  # type: ignore[operator]
            for stopping in self.trainer.early_stopping_callbacks if phase != "all" else ():
                stopping.wait_count = -1  # 0 after this epoch, however it is scored

    on_train_start = on_train_epoch_start  # an epoch that a resumed run does not begin again

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Compute the fused loss plus the sources' weighted losses, or those of the staged phase."""
        fused, sources = self.network.training_logits(batch["image"])  # type: ignore[operator]
        parts = parallel_loss(self.loss, fused, sources, batch["label"], self.options.parallel_weight)
        return self.log_losses(parts, len(batch["image"]))

    def examine(self, case: CachedCase) -> Examined:
        """Score the case by KiTS19's Dice, the cyst's where the data set has it, and their mean.

        With true ROIs and the margin around them, or with those that data.roi=oof reads, which have their margin already.
        """
        margin = 0 if self.options.data.roi == "oof" else self.options.roi.margin_mm
        boxes = [box.grow_mm(margin, case.spacing, case.shape) for box in case.boxes]
        reader = BoxReader.of(self.members(), self.options, self.sparing(), case.spacing)
        labels = paste_labels(read_boxes(reader, case.image, boxes, case.spacing, grow_mm=0, grow_rounds=0), case.image.shape)
        regions = regions_of(self.options.data.classes)
        truth = np.asarray(case.label)
        confusion = case_confusion(labels, truth)
        scores = scores_from_confusion(confusion, regions)
        mean = fmean(scores[region] for region in regions)  # without cysts this is the composite
        scene = Scene(case.id, case.image, labels, truth, case.spacing, {"score": mean, "mean": mean, **scores})
        return Examined(scene, confusion)


MODULES: dict[str, type[StageModule[Any]]] = {"coarse": CoarseModule, "fine": FineModule}
