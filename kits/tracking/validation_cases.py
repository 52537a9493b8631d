"""Pictures and scores of the validation cases, and their surfaces to turn in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from scipy import ndimage

from kits.config.schema.trainer_options import LoggerOptions
from kits.core.labels import CLASSES
from kits.core.ranks import gather
from kits.reporting.scene import COLORS, Scene
from kits.reporting.slices import slices_figure
from kits.tracking.names import CASES, CONFUSION, CONFUSION_COLUMNS, OVERLAYS, SCORE, SURFACES

# A stage's scores that are Dice, and what a picture calls them.
DICE = {"dice": "kidney with tumor", "kidney": "kidney", "tumor": "tumor", "cyst": "cyst", "composite": "composite"}
MOST_POINTS = 12000  # of a cloud: about 0.5 MB as JSON, and a kidney still looks closed
GAP_MM = 20.0  # between the prediction and the truth beside it


@dataclass(frozen=True)
class Cloud:
    """Points (n, 3) float32 (x, y, z) mm, positive to left, back and head; colors (n, 3) uint8."""

    points: np.ndarray
    colors: np.ndarray


@dataclass(frozen=True)
class Seen:
    """A validated case until all are: scores, confusion (4 x 4, in voxels), and pictures where due."""

    scores: dict[str, float]
    confusion: list[list[int]]
    image: np.ndarray | None = None
    cloud: Cloud | None = None


class CaseMonitor(Callback):
    """A monitor of the same few cases every n epochs, and of all in tables of the best epoch at the end."""

    def __init__(self, options: LoggerOptions, validation: Sequence[str]) -> None:
        self.every = options.images_every
        self.shown = frozenset(validation[: options.image_cases])
        self.seen: dict[str, Seen] = {}
        self.best: dict[str, Any] = {"score": None, "step": 0, "scores": {}, "confusion": []}

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers: what a resumed run needs for the tables at its end."""
        return self.best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best epoch so far."""
        self.best = state_dict

    def due(self, trainer: pl.Trainer) -> bool:
        """Tell whether this epoch is drawn: every n-th, and the last that is planned."""
        epoch = trainer.current_epoch + 1
        return bool(self.every) and (epoch % int(self.every or 1) == 0 or epoch == trainer.max_epochs)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int, dataloader_idx: int = 0
    ) -> None:
        """Take from one case what is logged of it; the volumes are let go."""
        if trainer.sanity_checking or outputs is None:
            return
        scene: Scene = outputs.scene
        seen = Seen(scene.scores, outputs.confusion.tolist())
        if scene.name in self.shown and self.due(trainer) and any(hasattr(log, "log_image") for log in trainer.loggers):
            seen = replace(seen, image=overlay(scene), cloud=surface_cloud(scene))
        self.seen[scene.name] = seen

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the pictures, and keep the tables where this epoch is the best so far."""
        if trainer.sanity_checking:
            return
        seen, self.seen = gather(self.seen), {}
        score = float(trainer.callback_metrics[SCORE])
        if self.best["score"] is None or score > self.best["score"]:
            table = np.sum([case.confusion for case in seen.values()], axis=0).tolist()
            scores = {name: case.scores for name, case in seen.items()}
            self.best = {"score": score, "step": trainer.global_step, "scores": scores, "confusion": table}
        images = {name: case.image for name, case in seen.items() if case.image is not None}
        clouds = {name: case.cloud for name, case in seen.items() if case.cloud is not None and len(case.cloud.points)}
        for key, content, method in ((OVERLAYS, images, "log_image"), (SURFACES, clouds, "log_clouds")):
            for log in loggers_with(method, trainer) if content else ():
                getattr(log, method)(key, list(content.values()), step=trainer.global_step, caption=list(content))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the tables of the best epoch, the worst case first."""
        scores: dict[str, dict[str, float]] = self.best["scores"]
        if not scores:
            return
        columns = ["case", *next(iter(scores.values()))]
        rows = [[name, *of_case.values()] for name, of_case in sorted(scores.items(), key=lambda item: item[1]["score"])]
        step, confusion = self.best["step"], confusion_rows(self.best["confusion"])
        for log in loggers_with("log_table", trainer):
            log.log_table(CASES, columns, rows, step=step)
            # A logger that knows a confusion matrix draws one.
            getattr(log, "log_confusion", log.log_table)(CONFUSION, CONFUSION_COLUMNS, confusion, step=step)


def loggers_with(method: str, trainer: pl.Trainer) -> list[Any]:
    """Return the loggers that have a method, in the first process; none in the others."""
    return [log for log in trainer.loggers if hasattr(log, method)] if trainer.is_global_zero else []


def overlay(scene: Scene) -> np.ndarray:
    """Return the planes of a case with prediction and truth on them, (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from kits.reporting.scene import PAPER

    figure = slices_figure(replace(scene, scores={DICE[name]: value for name, value in scene.scores.items() if name in DICE}))
    figure.set_facecolor(PAPER)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def surface_cloud(scene: Scene) -> Cloud:
    """Sample the surfaces of the prediction, and of the truth beside it, in at most MOST_POINTS points."""
    from matplotlib.colors import to_rgb

    window = scene.marked
    if window is None:
        return Cloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    spacing = np.array(scene.spacing)
    start = np.array([part.start for part in window])
    aside = (window[2].stop - window[2].start) * spacing[2] + GAP_MM
    points, colors = [], []
    for place, labels in enumerate(scene.maps):
        inside = np.asarray(labels[window])
        for label, name in scene.names.items():
            mask = inside == label
            # Padded, so that what touches the window's face has a surface there too.
            shell = mask & ~ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
            zyx = (np.argwhere(shell) + start + 0.5) * spacing
            points.append(zyx[:, ::-1] + [place * aside, 0, 0])
            colors.append(np.tile(np.round(255 * np.array(to_rgb(COLORS[name]))), (len(zyx), 1)))
    everything, paint = np.concatenate(points), np.concatenate(colors)
    keep = np.sort(np.random.default_rng(0).permutation(len(everything))[:MOST_POINTS])
    return Cloud(everything[keep].astype(np.float32), paint[keep].astype(np.uint8))


def confusion_rows(table: Sequence[Sequence[int]]) -> list[list[Any]]:
    """List true label, predicted label and voxels, without true background found to be such."""
    used = [label for label in range(len(CLASSES)) if label == 0 or any(table[label]) or any(row[label] for row in table)]
    return [[CLASSES[true], CLASSES[found], table[true][found]] for true in used for found in used if true or found]
