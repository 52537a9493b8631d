"""The loggers of a run: metrics.csv always, TensorBoard or Weights & Biases beside it."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from kits.core.errors import KitsError
from kits.io import write_text
from kits.runs.metrics_file import MetricsFile
from kits.tracking.cloud import Cloud
from kits.tracking.protocol import Rows, RunLog
from kits.tracking.steps import StepMonitor
from kits.tracking.validation_cases import CaseMonitor
from kits.tracking.weights_and_biases import WandbLog

LOGGERS = ("csv", "tensorboard", "wandb")


def build_loggers(config: dict[str, Any], *, kept: int = 0, wandb_id: str | None = None) -> list[RunLog]:
    """metrics.csv in the run folder always, and what the group `logger` names beside it.

    Args:
        config: the plain training configuration.
        kept: rows of metrics.csv that a resumed run goes on after; 0 begins anew.
        wandb_id: the run's id with W&B, that of the interrupted run where one goes on; None takes a new one.

    Raises:
        KitsError: the group names no logger of ours, or one whose package is not installed.
    """
    name, run_dir = config["logger"]["name"], Path(config["run_dir"])
    if name not in LOGGERS:
        raise KitsError(f"logger.name={name}: no such logger; take one of {', '.join(LOGGERS)}")
    loggers: list[RunLog] = [CsvLog(run_dir, kept)]
    if name == "wandb":
        loggers.append(WandbLog(run_dir, config, wandb_id or secrets.token_hex(4)))
    elif name == "tensorboard":
        loggers.append(TensorBoardLog(run_dir, resumed=kept > 0))
    return loggers


def build_monitors(config: dict[str, Any], split: dict[str, list[str]]) -> list[Callback]:
    """The callbacks that measure the steps and show the validation cases."""
    return [StepMonitor(), CaseMonitor(config, split["validation"])]


class CsvLog(MetricsFile, RunLog):
    """`metrics.csv`, and tables as files of their own."""

    def log_table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """`cases.csv` for `val/cases`."""
        write_table(self.path.with_name(f"{name.rpartition('/')[2]}.csv"), columns, rows)


def write_table(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Write a CSV file whole; none where there is nothing to write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not columns:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    write_text(path, text.getvalue())


class TensorBoardLog(RunLog):
    """Event files in the run folder's `tensorboard`: scalars, pictures, point clouds, and tables as text."""

    def __init__(self, run_dir: Path, *, resumed: bool) -> None:
        super().__init__()
        self.run_dir = run_dir
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise KitsError("logger=tensorboard: TensorBoard is not installed; pip install 'kits[tensorboard]'") from error
        self._open = SummaryWriter
        self.resumed = resumed
        self._writer: Any = None

    def writer(self, step: int) -> Any:
        """The writer of this run. A resumed run's hides what the killed one logged from this step on."""
        if self._writer is None:
            folder = self.run_dir / "tensorboard"
            if not self.resumed:
                for old in folder.glob("events.out.tfevents.*"):
                    old.unlink()
            self._writer = self._open(str(folder), purge_step=step if self.resumed else None)
        return self._writer

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.writer(step or 0).add_scalar(name, float(value), step or 0)

    def log_images(self, name: str, images: Mapping[str, np.ndarray], step: int) -> None:
        for case, image in images.items():
            self.writer(step).add_image(f"{name}/{case}", image, step, dataformats="HWC")

    def log_clouds(self, name: str, clouds: Mapping[str, Cloud], step: int) -> None:
        for case, cloud in clouds.items():
            self.writer(step).add_mesh(f"{name}/{case}", cloud.points[None], cloud.colors[None], global_step=step)

    def log_table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        text = "\n".join(f"| {' | '.join(shown(cell) for cell in line)} |" for line in lines)
        self.writer(step).add_text(name, text, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()


def shown(cell: Any) -> str:
    """A cell of a table as text."""
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)
