"""The fit: its precision, what cannot be trained refused before it begins, a good end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kits.config import one_line, plain
from kits.config.own_parts import blamed
from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.data.transforms import OwnTransform
from kits.inference.devices import AUTO, TRAINED, described, is_out_of_memory, pick_device, pick_precision
from kits.models.encoder2d import with_synchronized_statistics
from kits.runs.folder import LAST
from kits.runs.resuming import Start, batches_done, run_folder
from kits.training.datamodule import KitsDataModule
from kits.training.fine_tuning import print_parent
from kits.training.losses import OwnLoss
from kits.training.modules import StageModule
from kits.training.optimizers import build_scheduler


def choose_precision(options: Coarse | Fine) -> Coarse | Fine:
    """Choose the precision where that is left to us: the fastest on the device that trains.

    Raises:
        KitsError: this device cannot compute in the one that is asked for.
    """
    own = options.trainer
    device = pick_device(AUTO if own.accelerator in (AUTO, "gpu") else own.accelerator)
    picked = pick_precision(TRAINED.get(own.precision, AUTO), device, "trainer.precision")
    precision = next(name for name, precision in TRAINED.items() if precision == picked)
    return options.model_copy(update={"trainer": own.model_copy(update={"precision": precision})})


def announce(trainer: pl.Trainer, data: KitsDataModule, *, chosen: bool) -> None:
    """Print on what data and on what device is trained.

    Args:
        chosen: the precision is our choice.
    """
    options, ranks = data.options, trainer.world_size
    counts = f"{len(data.split['train'])} training and {len(data.split['validation'])} validation cases"
    print(f"{options.stage}: {counts}" + (f", {ranks} processes" if ranks > 1 else ""))
    device = described(trainer.strategy.root_device, TRAINED[options.trainer.precision], chosen=chosen)
    print(f"{data.workers()} loader workers on {device}")


def check_scored(trainer: pl.Trainer, cases: int) -> None:
    """Refuse a share of the validation cases, all processes' together, that is none."""
    least, share = max(1, cases // trainer.world_size), trainer.limit_val_batches
    if isinstance(share, float) and share and int(least * share) < 1:
        what = f"leaves none of a process's {least} validation cases; give a larger share, or their number"
        raise KitsError(f"trainer.limit_val_batches={share:g}: {what}")


def adapt_network(module: StageModule[Any], trainer: pl.Trainer) -> None:
    """Let BatchNorm synchronize and torch.compile fuse a training step, where options ask for it.

    Raises:
        KitsError: torch cannot do so here.
    """
    options, network = module.options.trainer, cast(Any, module.network)
    if options.sync_batchnorm:
        if trainer.strategy.root_device.type == "cpu":
            raise KitsError("trainer.sync_batchnorm=true: torch synchronizes statistics on GPUs only; set it to false on a CPU")
        module.network = network = with_synchronized_statistics(network)
    if options.compile:
        compiler = any(map(shutil.which, ("c++", "g++", "clang++", "cl")))
        if not compiler or (trainer.strategy.root_device.type != "cpu" and find_spec("triton") is None):
            needed = f"torch.compile needs {'triton' if compiler else 'a C++ compiler'}"
            raise KitsError(f"trainer.compile=true: {needed}, which is not here; install it, or leave the key out")
        network.training_logits = torch.compile(network.training_logits)


def try_own_parts(module: StageModule[Any]) -> None:
    """Try the parts of the user's own on, which would otherwise fail in the middle of a training.

    Raises:
        KitsError: one cannot be built, or does not do what its place asks for.
    """
    options = module.options
    if isinstance(options.optimizer, dict) or isinstance(options.scheduler, dict):
        watches = build_scheduler(options.scheduler, module.build_optimizer(), 1, 1)["scheduler"]
        if isinstance(watches, ReduceLROnPlateau) and not options.trainer.validates:
            raise KitsError("scheduler: waits for validation scores, trainer.limit_val_batches=0; take another")
    if isinstance(module.loss, OwnLoss):
        module.loss.try_on(options.model.classes)
    for name, step in options.augmentation.items():
        if isinstance(step, dict):
            OwnTransform(step, f"augmentation.{name}")(torch.zeros(options.sampling.patch))


@contextmanager
def guarded(
    trainer: pl.Trainer, module: StageModule[Any], data: KitsDataModule, start: Start, asked: Coarse | Fine
) -> Iterator[None]:
    """Refuse what cannot be trained, hold the run folder, and end all processes together if one fails.

    Args:
        asked: the options before the precision was chosen.

    Raises:
        KitsError: something is refused, the run folder cannot be had, what was saved of a part of the user's own does not fit it
            any more, or memory ran out.
    """
    adapt_network(module, trainer)
    if start.content is not None:
        batches_done(start.place, trainer.world_size, module.options)
    try_own_parts(module)
    data.trainer = trainer  # as `fit` does, too late to count the batches of each process
    data.check_batches()
    check_scored(trainer, len(data.split["validation"]))
    if trainer.is_global_zero:
        announce(trainer, data, chosen=asked.trainer.precision == AUTO)
        print_parent(module, data)
    options = module.options
    try:
        with run_folder(start, options, trainer):
            yield
    except Exception as error:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            # They would wait for this one for minutes; one that waits in a collective does not hear SIGTERM.
            launcher.kill(signal.SIGKILL)
        if not isinstance(error, RuntimeError | MemoryError) or not is_out_of_memory(error):
            if isinstance(error, KitsError):
                raise
            if start.content is not None and trainer.train_dataloader is None:  # before its first step
                what = f"{LAST} does not fit the parts of this run ({type(error).__name__}: {one_line(error)[:160]})"
                raise KitsError(
                    f"resume={start.folder}: {what}; undo what has changed in your own, or begin a new run"
                ) from error
            if own := blamed(error, plain(options)):
                raise own from error
            raise
        saving = "" if options.trainer.precision != "32-true" else ", or trainer.precision=bf16-mixed"
        saving += ", or model.checkpointing=true" if not getattr(options.model, "checkpointing", True) else ""
        raise KitsError(
            f"{trainer.strategy.root_device}: memory ran out in step {trainer.global_step + 1} ({one_line(error)[:160]});"
            f" give a smaller sampling.patch or sampling.batch_size{saving}"
        ) from error
