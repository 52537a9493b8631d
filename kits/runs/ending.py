"""The end of a training: why, for its manifest and whoever would go on, and with what weights."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, Timer

from kits.config import one_line
from kits.core.errors import KitsError
from kits.runs.folder import BEST, PATIENCE

EPOCHS, STEPS, TIME = "trainer.max_epochs", "trainer.max_steps", "trainer.max_time"


def ended_by(trainer: pl.Trainer) -> tuple[str, str]:
    """Tell what has ended a training that came to its own end.

    Returns:
        the key, "" for none of ours, and a sentence.
    """
    if trainer.max_epochs is not None and trainer.current_epoch >= trainer.max_epochs:
        return EPOCHS, f"{EPOCHS}={trainer.max_epochs}"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return STEPS, f"{STEPS}={trainer.max_steps}"
    for stopping in trainer.early_stopping_callbacks:
        if stopping.wait_count >= max(1, stopping.patience):
            return (
                PATIENCE,
                f"validations without a better {stopping.monitor}: {stopping.wait_count} ({PATIENCE}={stopping.patience})",
            )
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    left = [one.time_remaining() for one in callbacks if isinstance(one, Timer)]
    if any(seconds is not None and seconds <= 0 for seconds in left):
        return TIME, f"{TIME} is over"
    return "", "a callback or a sweep asked for it"


def end_of(trainer: pl.Trainer) -> str:
    """Tell where and why a training came to its own end."""
    return f"ended at step {trainer.global_step}, in epoch {trainer.current_epoch}: {ended_by(trainer)[1]}"


def broken_by(exception: BaseException) -> str:
    """Tell what has ended a training before its own end."""
    if isinstance(exception, SystemExit) and isinstance(exception.code, int) and exception.code > 128:
        return signal.Signals(exception.code - 128).name
    return f"{type(exception).__name__}: {one_line(exception)}"[:300]


class Best(ModelCheckpoint):
    """`best.ckpt`: the weights of the epoch with the best score, remembered in a moved folder too.

    Of the last epoch, where no score is to choose (`monitor=None`).
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the best score, and why the training has ended.

        Raises:
            KitsError: there is none.
        """
        if self.monitor is not None and self.best_model_score is None:
            what = f"{end_of(trainer)}, with nothing validated and so without {BEST}"
            raise KitsError(f"run_dir={self.dirpath}: {what}; train longer, or give a smaller trainer.val_check_interval")
        if trainer.is_global_zero:
            score = self.best_model_score
            what = "nothing was validated, the last weights" if score is None else f"best {self.monitor} {float(score):.4f}"
            print(f"{what}: {Path(str(self.dirpath)) / BEST}\n{end_of(trainer)}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores over, and give the files the names that they have here."""
        state = dict(state_dict)
        here = str(Path(str(self.dirpath)) / BEST)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = here if state[key] else ""
        state["best_k_models"] = dict.fromkeys([here], *state["best_k_models"].values()) if state["best_k_models"] else {}
        super().load_state_dict({**state, "dirpath": self.dirpath})
