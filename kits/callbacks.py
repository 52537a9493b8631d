"""What happens around a training: the best and last checkpoint, early stopping, progress, and the run's manifest."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar

from kits.data.cache import digest
from kits.io import write_json
from kits.logged import SCORE

PACKAGES = ("kits", "torch", "timm", "pytorch-lightning", "numpy", "SimpleITK", "hydra-core")


def build_callbacks(config: dict[str, Any], data_hash: str, split: dict[str, list[str]]) -> list[Callback]:
    """The callbacks of a run, from the group `callbacks`."""
    run_dir = Path(config["run_dir"])
    return [
        ModelCheckpoint(run_dir, filename="best", monitor=SCORE, mode="max", save_last=True, enable_version_counter=False),
        EarlyStopping(SCORE, mode="max", patience=config["callbacks"]["early_stopping"]["patience"]),
        # Each refresh waits for the GPU, so it is as rare as the log.
        TQDMProgressBar(refresh_rate=config["trainer"]["log_every_n_steps"]),
        Manifest(run_dir, config, data_hash, split),
    ]


class Manifest(Callback):
    """`manifest.json`: what this run was made from, enough to repeat it."""

    def __init__(self, run_dir: Path, config: dict[str, Any], data_hash: str, split: dict[str, list[str]]) -> None:
        self.path = run_dir / "manifest.json"
        self.began = time.monotonic()
        self.content: dict[str, Any] = {
            "command": [Path(sys.argv[0]).stem, *sys.argv[1:]],
            "config_hash": digest(config),
            "data_hash": data_hash,
            "split": split,
            "seed": config["seed"],
            "versions": versions(),
            "commit": commit(),
            "machine": {"system": platform.platform(), "processor": platform.processor()},
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known at the start, so that a run that dies has a manifest too."""
        self.content["device"] = str(pl_module.device)
        if trainer.is_global_zero:
            write_json(self.path, self.content)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add how it ended."""
        self.content["seconds"] = round(time.monotonic() - self.began, 1)
        self.content["epochs"] = trainer.current_epoch
        self.content["steps"] = trainer.global_step
        if trainer.is_global_zero:
            write_json(self.path, self.content)


def versions() -> dict[str, str]:
    """The interpreter's and the packages' versions."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> dict[str, Any] | None:
    """The project's git commit and whether files differ from it; None outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {"id": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return None
