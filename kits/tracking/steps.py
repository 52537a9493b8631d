"""Speed and steadiness of a training."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from kits.tracking.names import DATA_WAIT, GRADIENT_NORM, LEARNING_RATE, SAMPLE_RATE


class StepMonitor(Callback):
    """A monitor of learning rate, gradient norm, samples a second and data-wait share.

    It logs every `trainer.log_every_n_steps` steps and only counts between them, so a GPU is never waited for.
    """

    def __init__(self) -> None:
        self.norm: Tensor | None = None
        self._restart(waited=0.0)

    def _restart(self, waited: float) -> None:
        self.began, self.waited, self.samples = time.perf_counter(), waited, 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what lies between two epochs: it belongs to no step."""
        self._restart(loader_wait(trainer))

    on_train_start = on_train_epoch_start  # a run may go on within an epoch, which it does not begin again

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Measure the norm of all gradients, which Lightning clips after this."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            self.norm = get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count, and log at the steps where everything is logged."""
        self.samples += len(batch["image"])
        if trainer.global_step % trainer.log_every_n_steps or self.norm is None:  # type: ignore[attr-defined]
            return
        seconds, waited = time.perf_counter() - self.began, loader_wait(trainer)
        values = {
            LEARNING_RATE: max(group["lr"] for group in trainer.optimizers[0].param_groups),
            GRADIENT_NORM: self.norm,
            SAMPLE_RATE: self.samples * trainer.world_size / seconds,
            DATA_WAIT: (waited - self.waited) / seconds,
        }
        pl_module.log_dict(values, batch_size=len(batch["image"]))
        self.norm = None
        self._restart(waited)


def loader_wait(trainer: pl.Trainer) -> float:
    """Return seconds that the training has waited for its loader so far."""
    loader: Any = trainer.train_dataloader
    return float(loader.waited)
