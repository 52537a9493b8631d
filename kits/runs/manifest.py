"""`manifest.json`: what a run was made from, on what, and how it went; enough to repeat it."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from kits.config import plain
from kits.config.schema.training import Coarse, Fine
from kits.core.peak_memory import peak_bytes
from kits.data.cache import digest
from kits.io import write_json
from kits.runs.ending import broken_by, end_of
from kits.runs.folder import MANIFEST, PLACING
from kits.runs.resuming import Start

PACKAGES = ("kits", "torch", "timm", "pytorch-lightning", "monai", "numpy", "SimpleITK", "hydra-core", "wandb")
GIB = 2**30


class Manifest(Callback):
    """Writes the manifest when a run begins and when it ends, however it ends; a resumed run adds to it."""

    def __init__(self, start: Start, options: Coarse | Fine, data_hash: str, split: dict[str, list[str]]) -> None:
        self.path = start.folder / MANIFEST
        self.began = time.monotonic()
        self.seconds = start.seconds
        made = {"command": command_line(), "versions": versions(), "commit": commit(), "machine": machine()}
        self.content: dict[str, object] = {
            **made,
            "config_hash": config_hash(plain(options)),
            "data_hash": data_hash,
            "split": split,
            "seed": options.seed,
            "wandb_id": start.wandb_id,
        }
        if start.manifest:
            before = {key: start.manifest[key] for key in made if key in start.manifest}
            changed = {key: value for key, value in made.items() if key == "command" or value != before.get(key)}
            again = {"epoch": start.place["epoch"], "batches": start.place["batches"], **changed}
            self.content |= {**before, "resumed": [*start.manifest.get("resumed", []), again]}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known at the start, so that a run that dies has a manifest too."""
        if "parent" in pl_module.hparams:
            self.content["parent"] = pl_module.hparams["parent"]
        self.content["device"], self.content["precision"] = str(pl_module.device), trainer.precision
        if pl_module.device.type == "cuda":
            self.content["tf32"] = torch.backends.cudnn.allow_tf32  # then 32 bits are 19 inside of convolutions
        self._write(trainer, finished=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write how it ended."""
        self.content["ended"] = end_of(trainer)
        self._write(trainer, finished=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write how far it came."""
        self.content["ended"] = broken_by(exception)
        self._write(trainer, finished=False)

    def _write(self, trainer: pl.Trainer, *, finished: bool) -> None:
        self.content["finished"] = finished
        self.content["seconds"] = round(self.seconds + time.monotonic() - self.began, 1)
        self.content["epochs"], self.content["steps"] = trainer.current_epoch, trainer.global_step
        self.content["peak_memory_gib"] = peak_memory()
        if trainer.is_global_zero:
            write_json(self.path, self.content)


def command_line() -> str:
    """Return the command as a shell takes it again, from the same working folder."""
    # `python -m kits.train` stands in sys.argv as the path of the module's file.
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    started = ["-m", spec.name] if spec is not None else [sys.argv[0]]
    return shlex.join(["python", *started, *sys.argv[1:]])


def config_hash(config: Mapping[str, object]) -> str:
    """Digest what was asked of a training, whatever its folders."""
    return digest({key: value for key, value in config.items() if key not in PLACING})


def versions() -> dict[str, str]:
    """Return the interpreter's and the packages' versions."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> dict[str, str | bool] | None:
    """Return the project's git commit and whether files differ from it; None outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {"id": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, object]:
    """Describe what the run computes with."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages / GIB, 1),
        "gpus": [{"name": card.name, "memory_gib": round(card.total_memory / GIB, 1)} for card in cuda],
    }


def processor() -> str:
    """Return the processor's name; Linux has it in a file only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def peak_memory() -> dict[str, float]:
    """Return the most that this process has held so far, GiB, on the processor's side and on each GPU's."""
    found = {"process": peak_bytes() / GIB}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found |= {f"cuda:{index}": torch.cuda.max_memory_allocated(index) / GIB for index in range(torch.cuda.device_count())}
    return {name: round(value, 3) for name, value in found.items()}
