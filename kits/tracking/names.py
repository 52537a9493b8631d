"""The names under which a training logs, shared by its loggers, its dashboard and their tests.

A name is `train/...` where it is of a training step and `val/...` where it is of the validation cases.
"""

from __future__ import annotations

from collections.abc import Sequence

from kits.core.labels import regions_of

LOSS = "train/loss"
LEARNING_RATE = "train/learning_rate"  # of the parameter group that learns fastest
GRADIENT_NORM = "train/gradient_norm"  # before it is clipped
SAMPLE_RATE = "train/samples_per_second"  # patches, of all processes together
DATA_WAIT = "train/data_wait"  # share of the time in which a step waits for its batch

SCORE = "val/score"  # chooses the best checkpoint
COARSE_SCORES = ("score", "dice", "recall", "roi_kidney", "roi_tumor", "roi_share")

OVERLAYS = "val/overlays"  # pictures of the same cases, again and again
SURFACES = "val/surfaces"  # the same cases in 3D, prediction beside truth
CASES = "val/cases"  # table: every case's scores
CONFUSION = "val/confusion"  # voxels by their true and their predicted label
CONFUSION_TABLE = "val/confusion_table"  # W&B's own name for the table behind a plot of that name
CONFUSION_COLUMNS = ("truth", "prediction", "voxels")


def loss_name(part: str) -> str:
    """Return the name of a part of the loss: `fused`, `source0`, or a term such as `dice` or `ce`."""
    return f"{LOSS}_{part}"


def loss_names(sources: int, terms: Sequence[str] = ()) -> tuple[str, ...]:
    """List what a fine training of so many sources logs of its loss once all of the network learns."""
    return (LOSS, *(loss_name(part) for part in ("fused", *terms, *(f"source{k}" for k in range(sources)))))


def score_name(score: str) -> str:
    """Return the name of the mean of a score over the validation cases."""
    return f"val/{score}"


def fine_scores(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the scores of a case in the fine stage, where the data set has these classes."""
    return ("score", "mean", *regions_of(classes), "composite")
