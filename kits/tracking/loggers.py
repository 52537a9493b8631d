"""The loggers of a run: metrics.csv always, TensorBoard or Weights & Biases beside it.

These are Lightning's. A logger draws where it has `log_image` and takes tables where it has `log_table`, as Lightning's
WandbLogger has them; any other logger of Lightning can stand beside these.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from kits.config import one_line
from kits.config.own_parts import build
from kits.config.schema.trainer_options import WandB
from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.runs.folder import BEST, MANIFEST
from kits.runs.metrics_file import MetricsFile
from kits.runs.resuming import Start
from kits.tracking.validation_cases import Cloud

Rows = Sequence[Sequence[Any]]

STEP = "trainer/global_step"  # WandbLogger's name of the step that everything is drawn over
PLOT = "wandb/confusion_matrix/v1"  # a chart that every W&B server knows


def build_loggers(options: Coarse | Fine, start: Start) -> list[Logger]:
    """Build the logger of metrics.csv, and those that the group `logger` names, a user's own too.

    Raises:
        KitsError: the logger's package is not installed, or one of the user's own cannot be built.
    """
    loggers: list[Logger] = [MetricsFile(start.folder, start.rows)]
    if isinstance(options.logger, WandB):
        loggers.append(GuardedWandbLogger(start.folder, options.logger, options.stage, start.wandb_id))
    elif options.logger.name == "tensorboard":
        try:
            loggers.append(RunTensorBoardLogger(start.folder, start.step))
        except ModuleNotFoundError as error:
            raise KitsError("logger=tensorboard: TensorBoard is not installed; pip install 'kits[tensorboard]'") from error
    return [*loggers, *(build(own, f"logger.{name}") for name, own in options.logger.others().items())]


def guarded(method: Callable[..., None]) -> Any:
    """Make a method of a GuardedWandbLogger one that raises nothing."""

    @wraps(method)
    def call(logger: GuardedWandbLogger, *args: Any, **kwargs: Any) -> None:
        try:
            method(logger, *args, **kwargs)
        except Exception as error:
            logger.say(error, "some of this run is not logged there")

    return call


class GuardedWandbLogger(WandbLogger):
    """Lightning's W&B logger, of whose errors the first is said in one line; the training goes on.

    A server that does not answer at the start within `logger.timeout_s` leaves an offline run, which `wandb sync` sends later.
    """

    def __init__(self, run_dir: Path, options: WandB, stage: str, wandb_id: str) -> None:
        import wandb

        wait = float(options.timeout_s)
        super().__init__(
            name=options.run_name or run_dir.name,
            save_dir=run_dir,
            version=wandb_id,  # of a resumed run the interrupted one's, so that both are one
            project=options.project,
            entity=options.entity,
            group=options.group,
            job_type=stage,
            mode=options.mode or ("online" if os.environ.get("WANDB_API_KEY") else "offline"),
            settings=wandb.Settings(init_timeout=wait, login_timeout=wait, finish_timeout=wait),
        )
        self._run_dir, self._artifacts = run_dir, options.artifacts
        self._said = False

    def say(self, error: object, consequence: str) -> None:
        """Tell the user of the first error."""
        if not self._said:
            self._said = True
            text = one_line(error)
            print(f"W&B: {text[:200]}{'...' if len(text) > 200 else ''}; {consequence}", file=sys.stderr)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun when it is first asked for; offline where it cannot be online, else nowhere."""
        if self._experiment is None:
            import wandb

            for attempt, mode in enumerate(dict.fromkeys((self._wandb_init["mode"], "offline", "disabled"))):
                self._wandb_init["mode"] = mode
                try:
                    if attempt:
                        wandb.teardown()  # or the id counts as in use
                    return super().experiment
                except Exception as error:
                    later = f"this run is logged in {self._run_dir / 'wandb'}, from where `wandb sync` sends it later"
                    self.say(error, later if mode == "online" else "this run is not logged there")
        return self._experiment

    log_hyperparams = guarded(WandbLogger.log_hyperparams)
    log_metrics = guarded(WandbLogger.log_metrics)
    log_image = guarded(WandbLogger.log_image)
    log_table = guarded(WandbLogger.log_table)

    @guarded
    def log_clouds(self, key: str, clouds: Sequence[Cloud], step: int, caption: Sequence[str]) -> None:
        """Log points in 3D."""
        import wandb

        points = [np.hstack([np.round(cloud.points, 1), cloud.colors]) for cloud in clouds]
        objects: Any = [wandb.Object3D(one, caption=name) for one, name in zip(points, caption, strict=True)]
        self.log_metrics({key: objects}, step)

    @guarded
    def log_confusion(self, key: str, columns: Sequence[str], data: Rows, step: int) -> None:
        """Log counts (true label, predicted label, voxels) as a matrix."""
        import wandb

        fields = dict(zip(("Actual", "Predicted", "nPredictions"), columns, strict=True))
        table = wandb.Table(columns=list(columns), data=[list(row) for row in data])
        plot: Any = wandb.plot_table(PLOT, table, fields, {"title": "Voxels of the validation cases"})
        self.log_metrics({key: plot}, step)

    @rank_zero_only
    @guarded
    def finalize(self, status: str) -> None:
        """Store what is asked for and end the run; what a server does not take stays in the run folder."""
        if self._experiment is not None:
            if status == "success" and self._artifacts:
                self._store()
            run, self._experiment = self._experiment, None
            run.finish(exit_code=0 if status == "success" else 1)

    @guarded
    def _store(self) -> None:
        for kind, name in (("model", BEST), ("split", MANIFEST)):
            self.experiment.log_artifact(str(self._run_dir / name), name=f"{kind}-{self.version}", type=kind)


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger in the run folder's `tensorboard`; tables are text there.

    Args:
        step: of the checkpoint that a run goes on from; what a killed run logged after it is hidden. 0 begins anew.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        # No `hp_metric`, which would be a curve at -1.
        super().__init__(run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=step or None)
        self._step = step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer; a run that begins anew removes an older one's events, but only once it has begun."""
        if self._experiment is None and not self._step:
            for old in Path(self.log_dir).glob("events.out.tfevents.*"):
                old.unlink()
        return super().experiment

    def log_image(self, key: str, images: Sequence[np.ndarray], step: int, caption: Sequence[str]) -> None:
        """Log pictures (H, W, 3) uint8, each under its own name."""
        for image, name in zip(images, caption, strict=True):
            self.experiment.add_image(f"{key}/{name}", image, step, dataformats="HWC")

    def log_clouds(self, key: str, clouds: Sequence[Cloud], step: int, caption: Sequence[str]) -> None:
        """Log points in 3D."""
        for cloud, name in zip(clouds, caption, strict=True):
            self.experiment.add_mesh(f"{key}/{name}", cloud.points[None], cloud.colors[None], global_step=step)

    def log_table(self, key: str, columns: Sequence[str], data: Rows, step: int) -> None:
        """Log a table as text."""
        lines = [columns, ["---"] * len(columns), *data]
        cells = ([f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines)
        self.experiment.add_text(key, "\n".join(f"| {' | '.join(line)} |" for line in cells), step)
