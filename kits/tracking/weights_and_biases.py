"""Weights & Biases, which may be down without a training noticing more than one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_only

from kits.config import one_line
from kits.tracking.cloud import Cloud
from kits.tracking.protocol import Rows, RunLog

STEP = "trainer/global_step"
PLOT = "wandb/confusion_matrix/v1"  # a chart that every W&B server knows


def mode_of(options: Mapping[str, Any]) -> str:
    """`logger.mode`, or online where a key is at hand and offline where none is."""
    return str(options["mode"] or ("online" if os.environ.get("WANDB_API_KEY") else "offline"))


class WandbLog(RunLog):
    """One W&B run. Every call's errors are caught, and the first is said in one line; the training goes on.

    A server that does not answer at the start within `logger.timeout_s` leaves an offline run, which `wandb sync` sends later.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], wandb_id: str) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.config = config
        self.id = wandb_id
        self._run: Any = None
        self._started = self._said = False

    def run(self) -> Any:
        """The run, started when first asked for; None where it cannot be."""
        if not self._started:
            self._started = True
            self._run = self._start(mode_of(self.config["logger"]))
        return self._run

    def _start(self, mode: Any) -> Any:
        import wandb

        options = self.config["logger"]
        wait = float(options["timeout_s"])
        arguments = {
            "id": self.id,
            "resume": "allow",
            "dir": str(self.run_dir),
            "project": options["project"],
            "entity": options["entity"],
            "group": options["group"],
            "name": options["run_name"] or self.run_dir.name,
            "job_type": self.config["stage"],
            "config": self.config,
            "settings": wandb.Settings(init_timeout=wait, login_timeout=wait, finish_timeout=wait),
        }
        try:
            run = wandb.init(mode=mode, **arguments)
        except Exception as error:
            if mode != "online":
                self._say(error, "this run is not logged there")
                return None
            self._say(error, f"this run is logged in {self.run_dir / 'wandb'}, from where `wandb sync` sends it later")
            try:
                wandb.teardown()  # or the id counts as in use
                run = wandb.init(mode="offline", **arguments)
            except Exception:
                return None
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run

    def _say(self, error: object, consequence: str) -> None:
        if not self._said:
            self._said = True
            text = one_line(error)
            print(f"W&B: {text[:200]}{'...' if len(text) > 200 else ''}; {consequence}", file=sys.stderr)

    def _send(self, values: Callable[[Any], dict[str, Any]], step: int) -> None:
        """Log what `values` makes of W&B's package."""
        try:
            if (run := self.run()) is not None:
                import wandb

                run.log({**values(wandb), STEP: step})
        except Exception as error:
            self._say(error, "some of this run is not logged there")

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._send(lambda wandb: dict(metrics), step or 0)

    def log_images(self, name: str, images: Mapping[str, np.ndarray], step: int) -> None:
        self._send(lambda wandb: {name: [wandb.Image(image, caption=case) for case, image in images.items()]}, step)

    def log_clouds(self, name: str, clouds: Mapping[str, Cloud], step: int) -> None:
        def objects(wandb: Any) -> list[Any]:
            colored = {case: np.hstack([np.round(cloud.points, 1), cloud.colors]) for case, cloud in clouds.items()}
            return [wandb.Object3D(points, caption=case) for case, points in colored.items()]

        self._send(lambda wandb: {name: objects(wandb)}, step)

    def log_table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        self._send(lambda wandb: {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step)

    def log_confusion(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        fields = dict(zip(("Actual", "Predicted", "nPredictions"), columns, strict=True))

        def plot(wandb: Any) -> Any:
            table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
            return wandb.plot_table(PLOT, table, fields, {"title": "Voxels of the validation cases"})

        self._send(lambda wandb: {name: plot(wandb)}, step)

    def log_files(self, kind: str, paths: Sequence[Path]) -> None:
        try:
            if (run := self.run()) is not None:
                import wandb

                artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
                for path in paths:
                    artifact.add_file(str(path))
                run.log_artifact(artifact)
        except Exception as error:
            self._say(error, f"the {kind} is not stored there")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run. What the server does not take within `logger.timeout_s` stays in the run folder."""
        try:
            if self._run is not None:
                self._run.finish(exit_code=0 if status == "success" else 1)
        except Exception as error:
            self._say(error, f"`wandb sync` sends what is in {self.run_dir / 'wandb'}")
        self._run = None
