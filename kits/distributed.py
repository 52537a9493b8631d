"""The trainer of a run, on one device or with one process on each of many."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from kits.config import one_line
from kits.errors import KitsError
from kits.models.statistics import with_synchronized_statistics
from kits.sharding import shard_from_environment, started_by_srun

# Options of the group `trainer` that are not Lightning's, or that Lightning would get wrong here.
OWN = ("strategy", "launcher", "sync_batchnorm")


def build_trainer(config: dict[str, Any], **parts: Any) -> pl.Trainer:
    """Lightning's trainer from the group `trainer`.

    Args:
        config: the plain training configuration.
        parts: callbacks and logger.

    Raises:
        KitsError: an option is refused, the devices cannot be had, or they are not as many as the processes that were started.
    """
    options = {name: value for name, value in config["trainer"].items() if name not in OWN}
    strategy = strategy_of(config)
    # Only where a launcher has started several processes is there a cluster to read: within a batch job, but without srun,
    # Lightning would take the job's tasks for processes that somebody else has started, and train on one device or wait for ever.
    processes = shard_from_environment()[1] if strategy != "auto" else 1
    try:
        trainer = pl.Trainer(
            **options,
            strategy=strategy,
            plugins=None if processes > 1 else LightningEnvironment(),
            default_root_dir=config["run_dir"],
            enable_model_summary=False,
            use_distributed_sampler=False,  # Lightning's repeats cases until every rank has as many as any other
            **parts,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise KitsError(f"trainer: {one_line(error)}") from error
    wanted = trainer.num_devices * trainer.num_nodes
    if wanted > 1 and strategy == "auto":
        raise KitsError(f"trainer: {wanted} devices need trainer=ddp (one machine) or trainer=slurm (several)")
    if processes > 1 and wanted != processes:
        raise KitsError(
            f"trainer: {processes} processes were started for {trainer.num_nodes} x {trainer.num_devices} devices; start one for"
            " each (srun --ntasks-per-node, torchrun --nproc-per-node), or set trainer.devices and trainer.num_nodes"
        )
    return trainer


def strategy_of(config: dict[str, Any]) -> str | DDPStrategy:
    """Lightning's strategy: one process alone, or one process for each device whose gradients are averaged.

    Raises:
        KitsError: another strategy, whose checkpoints or processes would be of another kind; or trainer=slurm without srun.
    """
    options = config["trainer"]
    if options["launcher"] == "srun" and not started_by_srun():
        raise KitsError(
            "trainer=slurm: srun has not started this process; write srun before the command in the batch script,"
            " or take trainer=ddp on one machine"
        )
    if options["strategy"] == "auto":
        return "auto"
    if options["strategy"] != "ddp":
        raise KitsError(f"trainer.strategy={options['strategy']}: no such strategy; take auto (one device) or ddp")
    # In each phase of a staged training some parameters get no gradient.
    return DDPStrategy(find_unused_parameters=config.get("training") == "staged")


def synchronize_batchnorm(module: pl.LightningModule, trainer: pl.Trainer, config: dict[str, Any]) -> None:
    """With `trainer.sync_batchnorm`, let BatchNorm that learns its statistics take them over all processes.

    Raises:
        KitsError: the processes do not run on GPUs.
    """
    if not config["trainer"]["sync_batchnorm"]:
        return
    if trainer.strategy.root_device.type == "cpu":
        raise KitsError("trainer.sync_batchnorm=true: torch synchronizes statistics on GPUs only; set it to false on a CPU")
    module.network = with_synchronized_statistics(cast(nn.Module, module.network))


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """End the processes that this one has started if it fails: they would wait for it for minutes, and say more than it does."""
    try:
        yield
    except Exception:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)  # one that waits in a collective does not hear SIGTERM
        raise
