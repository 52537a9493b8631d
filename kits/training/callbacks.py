"""Build the callbacks of a run: checkpoints, early stopping, progress, the manifest and the monitors."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, TQDMProgressBar

from kits.config.own_parts import build
from kits.config.schema.training import Coarse, Fine
from kits.core.parallel import REDRAW_SECONDS, ticking
from kits.runs.checkpointing import Last
from kits.runs.ending import Best
from kits.runs.manifest import Manifest
from kits.runs.resuming import Start
from kits.tracking.names import SCORE
from kits.tracking.steps import StepMonitor
from kits.tracking.validation_cases import CaseMonitor
from kits.training.datamodule import KitsDataModule
from kits.training.fine_tuning import StillEncoders


class ProgressBar(TQDMProgressBar):
    """Lightning's bars by time: a step takes milliseconds on a GPU, or a minute on a CPU.

    A GPU waits for each drawing. They say what they wait for where that is no step like all others.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        self._drawn = 0.0
        self._clock = ExitStack()

    def _should_update(self, current: int, total: int) -> bool:
        now = time.monotonic()
        if not self.is_enabled or (now - self._drawn < REDRAW_SECONDS and current != total):
            return False
        self._drawn = now
        return True

    def on_train_start(self, *of_training: Any) -> None:
        """Let the clock run."""
        super().on_train_start(*of_training)
        self._clock.enter_context(ticking(self.train_progress_bar))

    def on_train_epoch_start(self, trainer: pl.Trainer, *of_training: Any) -> None:
        """Say that the epoch waits for its first patches."""
        super().on_train_epoch_start(trainer, *of_training)
        self.train_progress_bar.set_postfix_str("waits for patches")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Say that the first step is computed, in which libraries set themselves up."""
        if trainer.global_step == 0 or batch_idx == 0:
            self.train_progress_bar.set_postfix_str("computes the first step")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the validation case, which takes longer than a step."""
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if batch is not None:
            self.val_progress_bar.set_postfix_str(batch.id)

    def on_train_end(self, *of_training: Any) -> None:
        """Stop the clock."""
        self._clock.close()
        super().on_train_end(*of_training)

    def on_exception(self, *of_training: Any) -> None:
        """Stop the clock."""
        self._clock.close()


def build_callbacks(options: Coarse | Fine, data: KitsDataModule, start: Start) -> list[Callback]:
    """Build the callbacks of a run, from the group `callbacks`, the user's own among them."""
    score = SCORE if options.trainer.validates else None  # without one, Lightning keeps the weights of the last epoch
    return [
        Best(start.folder, filename="best", monitor=score, mode="max", save_weights_only=True, enable_version_counter=False),
        # Not strict: an epoch need not be validated (trainer.check_val_every_n_epoch).
        *([EarlyStopping(score, mode="max", patience=options.callbacks.early_stopping.patience, strict=False)] if score else []),
        *([StillEncoders(options.freeze_epochs)] if options.freeze_epochs else []),
        *([ProgressBar()] if options.trainer.enable_progress_bar else []),
        Manifest(start, options, data.data_hash, data.split),
        Last(start, data.data_hash, options),
        StepMonitor(),
        CaseMonitor(options.logger, data.split["validation"]),
        *(build(own, f"callbacks.{name}") for name, own in options.callbacks.others().items()),
    ]
