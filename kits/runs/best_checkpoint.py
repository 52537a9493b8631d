"""`best.ckpt`: the weights that a run is used by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from kits.core.errors import KitsError
from kits.runs.ending import end_of
from kits.runs.folder import BEST


class Best(ModelCheckpoint):
    """`best.ckpt`: the weights of the epoch with the best score, remembered in a moved folder too.

    Of the last epoch, where no score is to choose (`monitor=None`).
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the best score, and why the training has ended.

        Raises:
            KitsError: there is none.
        """
        if self.monitor is not None and self.best_model_score is None:
            what = f"{end_of(trainer)}, with nothing validated and so without {BEST}"
            raise KitsError(f"run_dir={self.dirpath}: {what}; train longer, or give a smaller trainer.val_check_interval")
        if trainer.is_global_zero:
            score = self.best_model_score
            what = "nothing was validated, the last weights" if score is None else f"best {self.monitor} {float(score):.4f}"
            print(f"{what}: {Path(str(self.dirpath)) / BEST}\n{end_of(trainer)}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores over, and give the files the names that they have here."""
        state = dict(state_dict)
        here = str(Path(str(self.dirpath)) / BEST)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = here if state[key] else ""
        state["best_k_models"] = dict.fromkeys([here], *state["best_k_models"].values()) if state["best_k_models"] else {}
        super().load_state_dict({**state, "dirpath": self.dirpath})
