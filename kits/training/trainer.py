"""The trainer of a run, on one device or with one process on each of many."""

from __future__ import annotations

import logging
import os
import re
import warnings
from inspect import signature
from typing import Any

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
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.nn.parallel import DistributedDataParallel

from kits.config import one_line, plain
from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.core.sharding import TORCHRUN, launched, started_by_srun
from kits.runs.checkpointing import WholeCheckpoints
from kits.runs.resuming import Start

# Options of the group `trainer` that are not Lightning's, or that Lightning would get wrong here.
OWN = ("strategy", "launcher", "sync_batchnorm", "profiler", "compile")
PROFILERS: dict[str, type[Profiler]] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
# In the environment of the processes that a training starts: the process that started them.
STARTED_BY = "KITS_STARTED_BY"
# What Lightning believes of a process that nothing but Lightning has started: whatever other programs left there goes. Several
# machines without torchrun and srun are told their number and the first one's address by hand.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def build_trainer(options: Coarse | Fine, start: Start | None = None, **parts: Any) -> pl.Trainer:
    """Build Lightning's trainer from the group `trainer`.

    Args:
        start: where the training begins; None for one that keeps no checkpoints.
        parts: callbacks and logger, and options in place of the group's.

    Raises:
        KitsError: the devices cannot be had, or they are not as many as the processes that were started.
    """
    quieten()
    own = options.trainer
    given = {name: value for name, value in plain(own).items() if name not in OWN} | parts
    strategy = strategy_of(options)
    try:
        trainer = pl.Trainer(
            **given,
            strategy=strategy,
            # Into a file: Lightning would log it, and its log is silent here.
            profiler=PROFILERS[own.profiler](dirpath=options.run_dir, filename="profile") if own.profiler else None,
            plugins=[environment_of(strategy, own.num_nodes), *([WholeCheckpoints(start)] if start else [])],
            default_root_dir=options.run_dir,
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


def quieten() -> None:
    """Silence Lightning's tips about clusters, loaders and loggers, which would drown what matters here.

    And torch's profiler, which says when it begins and ends, and that there is no GPU.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    for name in (
        "pytorch_lightning.utilities.rank_zero",
        "pytorch_lightning.accelerators.cuda",
        "lightning_fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*treespec",
        "The '.*_dataloader' does not have many workers",
        "(Checkpoint|Experiment logs) directory",
        "You're resuming from a checkpoint that ended before the epoch ended",  # our sampler begins where it ended
        "It is recommended to use `self.log.'val/",  # scores are gathered from all processes before they are logged
        "Found .* in eval mode at the start of training",  # frozen statistics are, on purpose
        "The number of training batches .* is smaller than the logging interval",  # an epoch's means are logged all the same
        "Grad strides do not match bucket view strides",  # gradients of 1 x 1 kernels have two equivalent layouts
    ):
        warnings.filterwarnings("ignore", message)


def strategy_of(options: Coarse | Fine) -> str | DDPStrategy:
    """Choose Lightning's strategy: one process alone, or one a device with averaged gradients.

    Raises:
        KitsError: trainer=slurm without srun.
    """
    if options.trainer.launcher == "srun" and not started_by_srun():
        raise KitsError(
            "trainer=slurm: srun has not started this process; write srun before the command in the batch script,"
            " or take trainer=ddp on one machine"
        )
    if options.trainer.strategy == "auto":
        return "auto"
    # Frozen statistics are the same everywhere by themselves; newer releases of torch have another name for that.
    names = signature(DistributedDataParallel).parameters
    synchronize = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    fixed = getattr(options.model, "freeze_statistics", options.model.name == "unet3d")
    # In each phase of a staged training, and while encoders stay still, some parameters get no gradient.
    unused = options.freeze_epochs > 0 or (isinstance(options, Fine) and options.training == "staged")
    synchronized: dict[str, Any] = {synchronize: not fixed}
    return DDPStrategy(find_unused_parameters=unused, **synchronized)


def environment_of(strategy: str | DDPStrategy, nodes: int) -> ClusterEnvironment:
    """Choose who starts the processes: torchrun or srun if one has started several, else Lightning.

    Lightning's own guess takes every job of SLURM for one that srun started, and so waits in a batch script for others for ever.
    """
    place = launched()
    if strategy == "auto":
        return LightningEnvironment()
    if place.count == 1:
        return OwnProcesses(nodes)
    # A job that is to go on is started again with resume=RUN. Lightning's own way on a cluster, auto_requeue, would save a
    # checkpoint of its own (hpc_ckpt_N.ckpt) in the middle of a step, which no run goes on from exactly.
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
        """True where this is one of the processes that have been started."""
        return self.started

    def teardown(self) -> None:
        """Remove from the environment what a later command could take itself for a process by."""
        super().teardown()
        if not self.started:
            for name in (STARTED_BY, "LOCAL_RANK"):
                os.environ.pop(name, None)
