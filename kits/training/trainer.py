"""The trainer of a run, on one device or with one process on each of many."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kits.config import one_line
from kits.core.errors import KitsError
from kits.core.sharding import TORCHRUN, launched, started_by_srun
from kits.inference.devices import AUTO, TRAINED, pick_device, pick_precision
from kits.models.statistics import with_synchronized_statistics

# Options of the group `trainer` that are not Lightning's, or that Lightning would get wrong here.
OWN = ("strategy", "launcher", "sync_batchnorm", "profiler", "compile")
PROFILERS: dict[str, type[Profiler]] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
# In the environment of the processes that a training starts: the process that started them.
STARTED_BY = "KITS_STARTED_BY"
# What Lightning believes of a process that nothing but Lightning has started: whatever other programs left there goes. Several
# machines without torchrun and srun are told their number and the first one's address by hand.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def build_trainer(config: dict[str, Any], plugins: Sequence[Any], **parts: Any) -> pl.Trainer:
    """Lightning's trainer from the group `trainer`.

    Args:
        config: the plain training configuration.
        plugins: of Lightning, beside the one that says who starts the processes.
        parts: callbacks and logger, and options in place of the group's.

    Raises:
        KitsError: an option is refused, the devices cannot be had, or they are not as many as the processes that were started.
    """
    options = {name: value for name, value in config["trainer"].items() if name not in OWN} | parts
    strategy, profiler = strategy_of(config), config["trainer"]["profiler"]
    try:
        trainer = pl.Trainer(
            **options,
            strategy=strategy,
            # Into a file: Lightning would log it, and its log is silent here.
            profiler=PROFILERS[profiler](dirpath=config["run_dir"], filename="profile") if profiler else None,
            plugins=[environment_of(strategy, config["trainer"]["num_nodes"]), *plugins],
            default_root_dir=config["run_dir"],
            enable_model_summary=False,
            use_distributed_sampler=False,  # Lightning's repeats cases until every rank has as many as any other
        )
    except MisconfigurationException as error:
        remedy = "see trainer=default in --help trainer"
        if re.search("accelerator|device|gpu|cuda|mps|tpu", str(error), re.IGNORECASE):
            here = f"torch sees {torch.cuda.device_count()} GPUs here"
            remedy = f"{here}, set trainer.accelerator and trainer.devices to what there is"
        raise KitsError(f"trainer: {one_line(error)}; {remedy}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise KitsError(f"trainer: {one_line(error)}") from error
    # Lightning's import takes it from RANK, LOCAL_RANK or SLURM_PROCID, whoever has set them.
    rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
    wanted, place = trainer.num_devices * trainer.num_nodes, launched()
    if strategy == "auto":
        if wanted > 1:
            raise KitsError(f"trainer: {wanted} devices need trainer=ddp (one machine) or trainer=slurm (several)")
        if place.launcher == TORCHRUN and place.count > 1:
            raise KitsError(
                f"trainer: torchrun started {place.count} processes, and each of them would train the same run; add trainer=ddp"
                f" trainer.devices={place.count}, or start the command without torchrun"
            )
    elif place.count not in (1, wanted):
        raise KitsError(
            f"trainer: {place.count} processes were started for {trainer.num_nodes} x {trainer.num_devices} devices; start one"
            " for each (srun --ntasks-per-node, torchrun --nproc-per-node), or set trainer.num_nodes and trainer.devices"
        )
    return trainer


def with_precision(config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A training's configuration with its precision chosen where that is left to us, and the precision's name in a prediction.

    Raises:
        KitsError: no such precision, or not on this device.
    """
    options = config["trainer"]
    names = {AUTO: AUTO, **{name: precision for precision, name in TRAINED.items()}}
    asked, accelerator = options["precision"], options["accelerator"]
    if asked not in names:
        raise KitsError(f"trainer.precision={asked}: no such precision; take one of {', '.join(names)}")
    device = pick_device(AUTO if accelerator in (AUTO, "gpu") else accelerator)
    precision = pick_precision(names[asked], device, "trainer.precision")
    return {**config, "trainer": {**options, "precision": TRAINED[precision]}}, precision


def check_scored(trainer: pl.Trainer, batches: int) -> None:
    """Refuse a training that would end before anything is validated, and so without a checkpoint.

    Args:
        batches: of an epoch, before `trainer.limit_train_batches`.

    Raises:
        KitsError: it would, or Lightning would refuse its intervals once it has begun.
    """
    limit, every, between = trainer.limit_train_batches, trainer.check_val_every_n_epoch or 1, trainer.val_check_interval
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise KitsError("trainer.fast_dev_run: keeps no checkpoint; take debug=fast")
    if not batches or not trainer.limit_val_batches:
        part = "train" if trainer.limit_val_batches else "val"
        raise KitsError(f"trainer.limit_{part}_batches: leaves no batch, and nothing to choose a checkpoint by; give more")
    if isinstance(between, int) and between > batches and trainer.check_val_every_n_epoch is not None:
        raise KitsError(f"trainer.val_check_interval={between}: an epoch has {batches} batches; give at most that")
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs < every:
        raise KitsError(f"trainer.check_val_every_n_epoch={every}: more than trainer.max_epochs={trainer.max_epochs}; give less")
    first = between if isinstance(between, int) else max(1, int(batches * between)) if between != 1.0 else batches * every
    steps = math.ceil(first / trainer.accumulate_grad_batches)
    if 0 <= trainer.max_steps < steps:
        raise KitsError(
            f"trainer.max_steps={trainer.max_steps}: ends before step {steps}, the first that is followed by a validation and so"
            f" by a checkpoint; give at least {steps}, or a smaller sampling.patches_per_epoch"
        )


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
    # Frozen statistics are the same everywhere by themselves; newer releases of torch have another name for that.
    names = signature(DistributedDataParallel).parameters
    synchronize = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    learned: dict[str, Any] = {synchronize: config["model"].get("freeze_statistics") is False}
    # In each phase of a staged training some parameters get no gradient.
    return DDPStrategy(find_unused_parameters=config.get("training") == "staged", **learned)


def environment_of(strategy: str | DDPStrategy, nodes: int) -> ClusterEnvironment:
    """Who starts the processes: torchrun or srun where one of them has started several, else Lightning.

    Lightning's own guess takes every job of SLURM for one that srun started, and so waits in a batch script for others for ever.
    """
    place = launched()
    if strategy == "auto":
        return LightningEnvironment()
    if place.count == 1:
        return OwnProcesses(nodes)
    # A job that is to go on is started again with resume=RUN.
    return TorchElasticEnvironment() if place.launcher == TORCHRUN else SLURMEnvironment(auto_requeue=False)


class OwnProcesses(LightningEnvironment):
    """Processes that Lightning starts, which know it by the one that started them.

    Lightning knows them by LOCAL_RANK alone, and would wait for ever for the others where another program has set it.
    """

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.started = os.environ.get(STARTED_BY) == str(os.getppid())
        if not self.started:
            for name in (*FOREIGN, *(BY_HAND if nodes == 1 else ())):
                os.environ.pop(name, None)
            os.environ[STARTED_BY] = str(os.getpid())

    @property
    def creates_processes_externally(self) -> bool:
        """Whether this is one of the processes that have been started."""
        return self.started

    def teardown(self) -> None:
        """Leave nothing in the environment by which a later command could take itself for one of these processes."""
        super().teardown()
        if not self.started:
            for name in (STARTED_BY, "LOCAL_RANK"):
                os.environ.pop(name, None)


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


def compile_network(module: pl.LightningModule, config: dict[str, Any]) -> None:
    """With `trainer.compile`, let torch.compile fuse a training step; validation has windows of any size, and does not.

    Raises:
        KitsError: it cannot work here.
    """
    if not config["trainer"].get("compile"):
        return
    gpu = pick_device(AUTO).type != "cpu" and config["trainer"]["accelerator"] != "cpu"
    lacking = "triton" if gpu and find_spec("triton") is None else None
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        lacking = "a C++ compiler"
    if lacking:
        raise KitsError(
            f"trainer.compile=true: torch.compile needs {lacking}, which is not here; install it, or leave the key out"
        )
    network: Any = module.network
    network.training_logits = torch.compile(network.training_logits)


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
