"""The reason why a training ended, for its last line, its manifest and whoever would go on with it."""

from __future__ import annotations

import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

from kits.config import one_line
from kits.runs.folder import PATIENCE

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
