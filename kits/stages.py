"""The two stages as LightningModules: what they learn from and how a validation case is scored."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from kits.checkpoint import FORMAT
from kits.config import check_classes
from kits.data.datasets import CachedCase
from kits.errors import KitsError
from kits.inference import BoxReader, coarse_mask, segment_boxes
from kits.labels import BACKGROUND, REGIONS, regions_of
from kits.losses import build_loss, deep_supervision, parallel_loss
from kits.metrics import dice, score_case
from kits.models import build_network
from kits.models.finenet import phase_at
from kits.models.groups import parameter_groups
from kits.models.memory import keep_freed_memory
from kits.roi import coverage, rois_of
from kits.volume import plane_grid

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
SCHEDULES = ("constant", "cosine")
TRAININGS = ("parallel", "staged")


class StageModule(pl.LightningModule):
    """What both stages share: the network, its optimiser, and case-level validation.

    Args:
        config: the plain training configuration. It travels in the checkpoint, which is enough to predict from.
        pretrained: load the weights that the configuration names; false where a checkpoint brings its own.
    """

    stage: str

    def __init__(self, config: dict[str, Any], *, pretrained: bool) -> None:
        super().__init__()
        self.save_hyperparameters({**config, "kits_format": FORMAT})
        self.config = config
        self.network = build_network(config["model"], pretrained=pretrained)
        self.loss = build_loss(config["loss"])
        self._scores: list[dict[str, float]] = []

    def configure_optimizers(self) -> Any:
        """Adam at a constant rate in the paper (section 3); other choices by name."""
        options = dict(self.config["optimizer"])
        name, schedule = options.pop("name"), options.pop("schedule")
        factors = {"encoder_factor": options.pop("encoder_factor"), "encoder_decay": options.pop("encoder_decay")}
        if name not in OPTIMIZERS:
            raise KitsError(f"optimizer.name={name}: no such optimizer; take one of {', '.join(OPTIMIZERS)}")
        if schedule not in SCHEDULES:
            raise KitsError(f"optimizer.schedule={schedule}: no such schedule; take one of {', '.join(SCHEDULES)}")
        optimizer = OPTIMIZERS[name](parameter_groups(self.network, options["lr"], **factors), **options)
        if schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """On a CPU large blocks of memory are used again."""
        if self.device.type == "cpu":
            keep_freed_memory()

    def validation_step(self, case: CachedCase, index: int) -> None:
        """Score one whole case."""
        self._scores.append(self.score(case))

    def on_validation_epoch_end(self) -> None:
        """Log the mean over the validation cases of every score; `val/score` chooses the best checkpoint."""
        for name in self._scores[0]:
            mean = fmean(scores[name] for scores in self._scores)
            self.log(f"val/{name}", mean, prog_bar=name == "score", batch_size=len(self._scores))
        self._scores.clear()

    def score(self, case: CachedCase) -> dict[str, float]:
        """Named scores of one case; higher `score` is better."""
        raise NotImplementedError


class CoarseModule(StageModule):
    """Stage one: kidney and tumor together against the rest, on the coarse grid."""

    stage = "coarse"

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """The loss of a batch of windows."""
        loss = deep_supervision(self.loss, self.network.training_logits(batch["image"]), batch["label"])  # type: ignore[operator]
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["image"]))
        return loss

    def score(self, case: CachedCase) -> dict[str, float]:
        """Dice and recall of the mask, how much of kidney and tumor its ROIs cover, and their share of the volume."""
        mask = coarse_mask(
            self.network,
            case.coarse_image,
            window_hu=self.config["data"]["window_hu"],
            inference=self.config["inference"],
            device=self.device,
        )
        truth = np.asarray(case.coarse_label)
        grid = plane_grid(case.shape, case.coarse_image.shape[1], len(case.coarse_image))
        boxes = rois_of(mask, grid, case.spacing, self.config["roi"])
        found = truth > BACKGROUND
        overlap = dice(mask, found)
        scores = {"dice": overlap, "recall": float((mask & found).sum() / max(1, found.sum()))}
        for region, values in REGIONS.items():
            inside = np.isin(truth, values)
            scores[f"roi_{region}"] = coverage(boxes, inside) if inside.any() else 1.0
        # Ours: Dice alone would take a mask whose ROIs miss a kidney, coverage alone one whose ROI is the whole body.
        scores["score"] = (overlap + scores["roi_kidney"]) / 2
        scores["roi_share"] = sum(float(np.prod(box.shape)) for box in boxes) / truth.size
        return scores


class FineModule(StageModule):
    """Stage two: every class of the data set inside the ROIs, all sources trained in one pass."""

    stage = "fine"

    def __init__(self, config: dict[str, Any], *, pretrained: bool) -> None:
        check_classes(config["data"]["classes"], config["model"]["classes"])
        super().__init__(config, pretrained=pretrained)

    def on_train_epoch_start(self) -> None:
        """Staged training: choose what learns now, and let early stopping count in the last phase only."""
        if self.config["training"] not in TRAININGS:
            raise KitsError(f"training={self.config['training']}: no such training; take one of {', '.join(TRAININGS)}")
        if self.config["training"] == "staged":
            phase = phase_at(self.current_epoch, int(self.trainer.max_epochs or 0), self.config["staged_shares"])
            self.network.set_phase(phase)  # type: ignore[operator]
            for stopping in self.trainer.early_stopping_callbacks if phase != "all" else ():
                stopping.wait_count = 0

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """The fused loss plus the weighted losses of the sources (parallel training), or those of the staged training's phase."""
        fused, sources = self.network.training_logits(batch["image"])  # type: ignore[operator]
        loss = parallel_loss(self.loss, fused, sources, batch["label"], self.config["parallel_weight"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["image"]))
        return loss

    def score(self, case: CachedCase) -> dict[str, float]:
        """Dice of the case: KiTS19's, the cyst's where the data set has cysts, and the mean over these regions.

        With true ROIs and the margin around them, or with those that data.roi=oof reads, which have their margin already.
        """
        margin = 0 if self.config["data"]["roi"] == "oof" else self.config["roi"]["margin_mm"]
        boxes = [box.grow_mm(margin, case.spacing, case.shape) for box in case.boxes]
        reader = BoxReader.of(self.network, self.config, self.device)
        labels, _ = segment_boxes(reader, case.image, boxes, case.spacing, grow_mm=0, grow_rounds=0)
        regions = regions_of(self.config["data"]["classes"])
        scores = score_case(labels, np.asarray(case.label), regions)
        mean = fmean(scores[region] for region in regions)  # without cysts this is the composite
        return {"score": mean, "mean": mean, **scores}


MODULES: dict[str, type[StageModule]] = {"coarse": CoarseModule, "fine": FineModule}
