"""What happens around a training: checkpoints, early stopping, progress, and the run's manifest."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Callback, EarlyStopping, TQDMProgressBar

from kits.config import check_whole
from kits.errors import KitsError
from kits.logged import SCORE
from kits.runs.manifest import Manifest
from kits.runs.saving import Best, Last
from kits.runs.start import Start


def build_callbacks(config: dict[str, Any], data_hash: str, split: dict[str, list[str]], start: Start) -> list[Callback]:
    """The callbacks of a run, from the group `callbacks`."""
    options = config["callbacks"]
    check_checkpoint(**options["checkpoint"])
    best = Best(start.folder, filename="best", monitor=SCORE, mode="max", save_weights_only=True, enable_version_counter=False)
    return [
        best,
        EarlyStopping(SCORE, mode="max", patience=options["early_stopping"]["patience"]),
        # Each refresh waits for the GPU, so it is as rare as the log.
        TQDMProgressBar(refresh_rate=config["trainer"]["log_every_n_steps"]),
        Manifest(start, config, data_hash, split),
        Last(start, data_hash, **options["checkpoint"]),
    ]


def check_checkpoint(every_steps: int | None, every_minutes: float | None) -> None:
    """Refuse intervals that are none.

    Raises:
        KitsError: steps are no whole number, or minutes no number above 0.
    """
    if every_steps is not None:
        check_whole("callbacks.checkpoint.every_steps", every_steps, 1)
    if every_minutes is not None and not (isinstance(every_minutes, int | float) and every_minutes > 0):
        raise KitsError(f"callbacks.checkpoint.every_minutes={every_minutes}: give a number above 0, or null")
