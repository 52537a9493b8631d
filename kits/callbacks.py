"""What happens around a training: checkpoints, early stopping, progress, and the run's manifest."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Callback, EarlyStopping, TQDMProgressBar

from kits.logged import SCORE
from kits.runs.manifest import Manifest
from kits.runs.saving import Best, Last
from kits.runs.start import Start


def build_callbacks(config: dict[str, Any], data_hash: str, split: dict[str, list[str]], start: Start) -> list[Callback]:
    """The callbacks of a run, from the group `callbacks`."""
    options = config["callbacks"]
    best = Best(start.folder, filename="best", monitor=SCORE, mode="max", save_weights_only=True, enable_version_counter=False)
    # Each refresh waits for the GPU, so it is as rare as the log.
    bar = TQDMProgressBar(refresh_rate=config["trainer"]["log_every_n_steps"])
    return [
        best,
        # Not strict: an epoch need not be validated (trainer.check_val_every_n_epoch).
        EarlyStopping(SCORE, mode="max", patience=options["early_stopping"]["patience"], strict=False),
        *([bar] if config["trainer"]["enable_progress_bar"] else []),
        Manifest(start, config, data_hash, split),
        Last(start, data_hash, **options["checkpoint"]),
    ]
