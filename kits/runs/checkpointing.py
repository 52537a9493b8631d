"""Checkpoints of a run: complete at any moment, exact to go on from, written on a signal."""

from __future__ import annotations

import os
import random
import shlex
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from kits.config.schema.training import Coarse, Fine
from kits.io import whole_file
from kits.models.checkpoint import open_checkpoint
from kits.runs.ending import ended_by
from kits.runs.folder import LAST
from kits.runs.metrics_file import MetricsFile
from kits.runs.resuming import PLACE, SEAL, STATE, Start, batches_done, seal

# A cluster's notice that time is up, a terminal's Ctrl-C, and the signal that `sbatch --signal=USR1@120` sends ahead of the end.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Processes that train together ask one another whether to save or stop after so many steps or seconds, whichever is sooner.
ASK_STEPS, ASK_SECONDS = 10, 5.0
BATCHES = "epoch_loop.batch_progress"


class Stopped(SystemExit):
    """The end of a training that a signal asked for; the exit code is 128 + signal."""


class WholeCheckpoints(TorchCheckpointIO):
    """A checkpoint plugin that writes beside the name, forces to the disk, and renames.

    Files are read as plain containers only. Lightning's own writer goes through the system's temporary folder, and a move from
    there to another disk is a copy, which a kill cuts short.

    Args:
        start: where this training begins; its checkpoint, which has been read and checked, is not read again.
    """

    def __init__(self, start: Start) -> None:
        super().__init__()
        self._start: Start | None = start

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, one to go on from with its seal."""
        if STATE in checkpoint:
            checkpoint[SEAL] = seal(checkpoint)
        with whole_file(Path(path), ".ckpt") as temporary, temporary.open("wb") as stream:
            torch.save(checkpoint, stream)
            stream.flush()
            os.fsync(stream.fileno())
        # The new name is safe from a loss of power only when its folder has been written too.
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of ours, or take the one that has been read, which is then let go."""
        start, self._start = self._start, None
        if start is not None and start.content is not None and start.checkpoint == Path(path):
            return start.content
        return open_checkpoint(Path(path))


class Last(Checkpoint):
    """`last.ckpt`: everything that the rest of the training depends on.

    It is written only where nothing is half done: before an epoch, before a step, before a validation, and at the end. Lightning
    counts what it is about to begin as begun already there, so its counters are set back to what is done.

    Args:
        start: where this training begins.
        data_hash: of the cache.
        options: of the training; `callbacks.checkpoint` says after how many steps and minutes it is written.
    """

    def __init__(self, start: Start, data_hash: str, options: Coarse | Fine) -> None:
        self.path = start.folder / LAST
        self.options, self.often = options, options.callbacks.checkpoint
        self.seconds = start.seconds  # of training, before interruptions
        self._data_hash = data_hash
        self._random = start.content[STATE]["random"] if start.content is not None else None
        self._signal = 0
        self._began = self._saved_at = time.monotonic()
        self._saved_step = self._asked_step = self._next_question = 0
        self._asked_at = self._began
        self._place: str | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let signals ask to stop from here on; Lightning gives back the former handlers at the end."""
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
        self._asked_step, self._asked_at = self._saved_step, self._saved_at
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait
        self._signal = number
        os.write(2, f"\n{signal.Signals(number).name}: stops after this step\n".encode())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save every finished epoch, with all that follows its last step."""
        self._pause(trainer, "epoch", due=trainer.global_step > 0)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Save within an epoch by steps or time, never amid accumulation or after a validation."""
        validated = trainer.val_check_batch and batch_idx % trainer.val_check_batch == 0
        if batch_idx == 0 or validated or batch_idx % trainer.accumulate_grad_batches:
            self._random_again()
            return
        every_steps, every_minutes = self.often.every_steps, self.often.every_minutes
        steps = every_steps is not None and trainer.global_step - self._saved_step >= every_steps
        minutes = every_minutes is not None and time.monotonic() - self._saved_at >= 60 * every_minutes
        if trainer.world_size > 1 and not steps and trainer.global_step < self._next_question:
            return
        self._pause(trainer, "batch", due=steps or minutes)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before a validation, which can take longer than the steps before it."""
        if not trainer.sanity_checking:
            self._pause(trainer, "validation", due=trainer.global_step > self._saved_step)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        """Stop without the other cases; processes have unlike numbers of them and could not ask."""
        if self._signal and not trainer.sanity_checking and trainer.world_size == 1:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let Lightning step a scheduler of the score, which it leaves out of an epoch that was resumed."""
        trainer.fit_loop._restarting = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state at the end, from which more epochs can follow."""
        self.save(trainer, "end")

    def _pause(self, trainer: pl.Trainer, place: str, due: bool) -> None:
        """Save where it is due, and end where a signal asked for it."""
        self._random_again()
        if self._agreed(trainer, due or bool(self._signal)):
            self.save(trainer, place)
            if self._agreed(trainer, bool(self._signal)):
                self._stop(trainer)
        # Until the next question, which all set alike by the slowest one's step, no process asks: each makes their GPUs wait.
        if trainer.world_size > 1:
            now, steps = time.monotonic(), max(1, trainer.global_step - self._asked_step)
            seconds = torch.tensor((now - self._asked_at) / steps, device=trainer.strategy.root_device)
            slowest = float(trainer.strategy.reduce(seconds, reduce_op="max"))
            self._asked_step, self._asked_at = trainer.global_step, now
            self._next_question = trainer.global_step + int(min(ASK_STEPS, max(1, ASK_SECONDS / max(slowest, 1e-6))))

    def _stop(self, trainer: pl.Trainer) -> NoReturn:
        """End the training at the checkpoint that has been written."""
        number = self._signal or signal.SIGTERM  # another process was asked
        again = shlex.join(["python", "-m", "kits.train", f"resume={self.path.parent}"])
        trainer.lightning_module.print(f"{signal.Signals(number).name}: saved at step {trainer.global_step}; go on with: {again}")
        raise Stopped(128 + number)

    def _random_again(self) -> None:
        """Go on with the random numbers of the interrupted run, at the place where they were noted."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def _agreed(self, trainer: pl.Trainer, decision: bool) -> bool:
        """Do what any process wants: a signal or a minute reaches them at different steps."""
        return bool(trainer.strategy.reduce_boolean_decision(decision, all=False)) if trainer.world_size > 1 else decision

    def save(self, trainer: pl.Trainer, place: str) -> None:
        """Write `last.ckpt`."""
        self._place = place
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save Lightning's counters as of what is done, and the state that it does not know of."""
        assert self._place is not None
        set_back(checkpoint["loops"]["fit_loop"], self._place)
        rows = [len(logger.rows) for logger in trainer.loggers if isinstance(logger, MetricsFile)]
        checkpoint[STATE] = {
            "rows": rows[0] if rows else 0,
            "seconds": self.seconds + time.monotonic() - self._began,
            "ended": ended_by(trainer) if self._place == "end" else None,
            "random": random_state(),
            "data_hash": self._data_hash,
        }

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set counters and patience as they are now, where Lightning would take the former."""
        place, counts = checkpoint[PLACE], checkpoint["loops"]["fit_loop"][BATCHES]
        more = batches_done(place, trainer.world_size, self.options) - place["batches"]
        for part in ("total", "current") if place["batches"] else ():
            counts[part] = {name: count + more for name, count in counts[part].items()}
        for stopping in trainer.early_stopping_callbacks:
            memory = {"patience": stopping.patience, "stopping_reason": 0, "stopping_reason_message": None}
            checkpoint["callbacks"][stopping.state_key] |= memory


def set_back(fit: dict[str, Any], place: str) -> None:
    """Set Lightning's counters of loops back, so that what is about to begin is not begun.

    An epoch that ends with all its counters equal is followed by the next, and a step likewise. A validation must look begun and
    not finished, or Lightning would take it for done.
    """
    if begun := {"epoch": "epoch_progress", "batch": BATCHES}.get(place):
        for part in ("total", "current"):
            fit[begun][part]["ready"] -= 1
    if place == "batch":
        fit[BATCHES]["is_last_batch"] = False
    if place == "validation":
        progress = fit["epoch_loop.val_loop.batch_progress"]
        progress["current"] = dict.fromkeys(progress["current"], 0)
        done = progress["total"]["completed"]
        progress["total"] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
        progress["is_last_batch"] = False


def random_state() -> dict[str, Any]:
    """Collect the states of Python, numpy, torch and every GPU, as plain containers and tensors."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go on with the random numbers of `random_state`; those of GPUs only where there are as many."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
