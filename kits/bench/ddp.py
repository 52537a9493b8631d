"""Training steps a second of two processes on a core each, against one process alone on one core."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from multiprocessing.queues import SimpleQueue
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import SimpleProfiler
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, get_context, spawn
from torch.utils.data import DataLoader

from kits.config.schema import parse
from kits.config.schema.training import Coarse, Fine, Train
from kits.core.errors import KitsError
from kits.core.parallel import end_with_parent
from kits.training.modules import MODULES
from kits.training.trainer import build_trainer


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure steps a second of each of two processes over those of one alone, in rounds."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        raise KitsError("ddp: needs two cores and a system that binds processes to them; run it on Linux with two free cores")
    ratios = []
    for number in range(config["rounds"]):
        alone, pair = step_seconds(config, cores[:1]), step_seconds(config, cores[:2])
        ratios.append(alone / pair)
        times = f"a step takes {alone:.2f} s alone, {pair:.2f} s in each of two"
        print(f"round {number + 1}: {times}, ratio {ratios[-1]:.3f}, load {os.getloadavg()[0]:.1f}", flush=True)
    return {"steps_per_second": median(ratios)}


def step_seconds(config: dict[str, Any], cores: list[int]) -> float:
    """Measure median seconds of a step, one process a core; of several, the slowest's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = get_context("spawn").SimpleQueue()
    try:
        spawn(train_on_core, (config, cores, port, results), nprocs=len(cores))
    except (ProcessExitedException, ProcessRaisedException) as error:
        raise KitsError(f"ddp: a process failed ({str(error).strip().splitlines()[-1]})") from error
    return max(median(results.get()) for _ in cores)


def train_on_core(rank: int, config: dict[str, Any], cores: list[int], port: int, results: SimpleQueue[list[float]]) -> None:
    """Run one process of a training on random patches as torchrun does; the seconds of its timed steps."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # advice on loaders and logging, which nothing here depends on
    end_with_parent()
    os.sched_setaffinity(0, {cores[rank]})
    torch.set_num_threads(1)
    ranks, strategy = len(cores), "ddp" if len(cores) > 1 else "auto"
    if ranks > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "GROUP_RANK": 0, "MASTER_PORT": port}
        os.environ.update({name: str(number) for name, number in numbers.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "bench"})
    pl.seed_everything(config["seed"], verbose=False)
    options = training_options({**config, "trainer": {**config["trainer"], "devices": ranks, "strategy": strategy}})
    module = MODULES[options.stage](options, pretrained=False)
    trainer = build_trainer(options, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    clock = trainer.profiler = SimpleProfiler()  # type: ignore[attr-defined]  # its steps include the exchange of gradients
    generator = torch.Generator().manual_seed(rank)  # each process has another batch
    shape = [config["sampling"]["batch_size"], *config["sampling"]["patch"]]
    image = torch.rand(shape, generator=generator).unsqueeze(1) * 2 - 1
    label = torch.randint(0, len(config["data"]["classes"]), shape, generator=generator)
    batches = [{"image": image, "label": label}] * (config["warm_up"] + config["steps"])
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    results.put(clock.recorded_durations["run_training_batch"][config["warm_up"] :])


def training_options(config: dict[str, Any]) -> Train:
    """Return the typed options of a training among the keys of a measurement."""
    options: Train = parse(
        Train, {key: value for key, value in config.items() if key in {*Coarse.model_fields, *Fine.model_fields}}
    )
    return options
