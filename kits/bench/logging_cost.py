"""The share of a training's time that logging and callbacks take at their default settings."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from kits.bench.ddp import training_options
from kits.bench.scoring import ellipsoids
from kits.bench.timing import seconds
from kits.config.schema.training import Fine
from kits.data.datasets import PatchLoader
from kits.reporting.scene import Scene
from kits.runs.resuming import Start
from kits.tracking.loggers import build_loggers
from kits.tracking.validation_cases import overlay, surface_cloud
from kits.training.callbacks import build_callbacks
from kits.training.datamodule import KitsDataModule
from kits.training.modules import FineModule
from kits.training.trainer import build_trainer


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure the share of the time without logging that logging adds, pictures spread over the steps.

    One training's log, loggers and callbacks are switched off and on again every few steps, so that both halves of a pair see the
    same machine.
    """
    torch.set_num_threads(config["threads"])
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (".*treespec", "You defined a `validation_step`", "Found .* eval mode"):
        warnings.filterwarnings("ignore", message)
    with TemporaryDirectory() as folder:
        config = {**config, "run_dir": folder}
        steps, step = measure_steps(config)
    options, sampling = config["logger"], config["sampling"]
    between = options["images_every"] * (sampling["patches_per_epoch"] // sampling["batch_size"]) * step
    drawn = options["image_cases"] * measure_pictures(config["scan"])
    print(
        f"steps {100 * steps:.2f} %; pictures {drawn:.1f} s after every {between:.0f} s of steps, {100 * drawn / between:.2f} %"
    )
    return {"logging": steps + drawn / between}


def measure_steps(config: dict[str, Any]) -> tuple[float, float]:
    """Measure the share that logging adds, the median over pairs of blocks, and the seconds of a step."""
    generator = torch.Generator().manual_seed(config["seed"])
    patch = config["sampling"]["patch"]
    image = torch.rand([1, *patch], generator=generator) * 2 - 1
    label = torch.randint(0, len(config["data"]["classes"]), patch, generator=generator, dtype=torch.uint8)
    block, pairs = config["trainer"]["log_every_n_steps"], config["pairs"]
    batches = (2 * pairs + 1) * block * config["sampling"]["batch_size"]
    loader = PatchLoader([{"image": image, "label": label}] * batches, batch_size=config["sampling"]["batch_size"])  # type: ignore[arg-type]
    options = training_options({**config, "trainer": {**config["trainer"], "max_epochs": 1}})
    assert isinstance(options, Fine)
    module, switch, start = FineModule(options, pretrained=False), Switch(block), Start(Path(options.run_dir))
    data = KitsDataModule(options)
    data.split = {"train": ["case_00000"], "validation": ["case_00001"]}
    # There are no scores here to choose a checkpoint by.
    chosen_by_score = (pl.callbacks.EarlyStopping, pl.callbacks.Checkpoint)
    callbacks = [switch, *(one for one in build_callbacks(options, data, start) if not isinstance(one, chosen_by_score))]
    trainer = build_trainer(options, callbacks=callbacks, logger=build_loggers(options, start))
    trainer.fit(module, loader)
    # The first block warms up; then they alternate, without and with logging.
    blocks = list(zip(switch.seconds[1:-1:2], switch.seconds[2::2], strict=False))
    for number, (off, on) in enumerate(blocks, 1):
        times = f"step {off / block:.4f} s, with logging {on / block:.4f} s"
        print(f"pair {number}: {times}, {100 * (on / off - 1):+.2f} %", flush=True)
    return median(on / off - 1 for off, on in blocks), median(off for off, _ in blocks) / block


class Switch(Callback):
    """A switch of logging, off and on every `block` steps, which times each block; the first warms up."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.seconds: list[float] = []
        self.on = True
        self._all: tuple[list[Callback], list[Any]] | None = None
        self._began = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """End a block and begin the next."""
        if index == 0:
            self._all = (list(trainer.callbacks), list(trainer.loggers))  # type: ignore[attr-defined]
        elif index % self.block == 0:
            self.seconds.append(clock(pl_module.device) - self._began)
            self.turn(trainer, pl_module)
        else:
            return
        self._began = clock(pl_module.device)

    def turn(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Turn logging off where it was on, and the other way round."""
        assert self._all is not None
        self.on = not self.on
        callbacks, loggers = self._all
        trainer.callbacks = callbacks if self.on else [self]  # type: ignore[attr-defined]
        trainer.loggers = loggers if self.on else []
        if self.on:
            del module.log
        else:
            module.log = lambda *arguments, **options: None  # type: ignore[method-assign]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Turn logging on: all callbacks hear of the end."""
        self.seconds.append(clock(pl_module.device) - self._began)


def clock(device: torch.device) -> float:
    """Return seconds; on a CPU those of this process, which other work on the machine does not lengthen."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure_pictures(scan: dict[str, Any]) -> float:
    """Time the pictures and surfaces of one scan, kidneys with a tumor found a slice off, in seconds."""
    truth = ellipsoids(scan["shape"], scan["spacing"])
    hu = np.where(truth > 0, 150, -50).astype(np.int16)
    scene = Scene("case_00000", hu, np.roll(truth, 1, axis=0), truth, tuple(scan["spacing"]), {"score": 0.9})

    def draw() -> None:
        overlay(scene)
        surface_cloud(scene)

    draw()  # matplotlib reads its fonts
    return seconds(draw, time.process_time)
