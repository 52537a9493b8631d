"""Trainings that begin with another's weights: what is taken over, what is new, what stays still."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from kits.config import plain
from kits.core.errors import KitsError
from kits.models.encoder2d import Encoder2d
from kits.runs.resuming import Start
from kits.training.datamodule import KitsDataModule
from kits.training.modules import StageModule


def inherit(module: StageModule[Any], start: Start) -> None:
    """Give a network the weights of its parent that fit, unless the run goes on, and note whence.

    Raises:
        KitsError: weights do not fit though the classes are the same, or are no numbers.
    """
    if start.content is not None and (noted := start.content["hyper_parameters"].get("parent")):
        module.hparams["parent"] = noted
    if (parent := start.parent) is None:  # as where a run goes on
        return
    own, model = module.network.state_dict(), plain(module.options.model)
    fitting = {name: value for name, value in parent.weights.items() if name in own and value.shape == own[name].shape}
    new = [name for name in own if name not in fitting]
    same = all(model.get(key) == parent.model.get(key) for key in ("classes", "deep_supervision"))
    if (new and same) or not all(torch.isfinite(value).all() for value in fitting.values()):
        what = f"its weights do not fit, such as {new[0]}" if new and same else "its weights are no numbers"
        raise KitsError(f"init={parent.path}: {what}; give a checkpoint of kits.train")
    module.network.load_state_dict(fitting, strict=False)
    provenance = {"path": str(parent.path.absolute()), "sha256": parent.sha256, "trained_on": parent.trained_on}
    module.hparams["parent"] = {**provenance, "new": new}


def print_parent(module: StageModule[Any], data: KitsDataModule) -> None:
    """Print what is new beside a parent's weights, and which validation cases it has learned from."""
    if parent := module.hparams.get("parent"):
        count, new = len(module.network.state_dict()), parent["new"]
        print(f"init={parent['path']}: {count - len(new)} of {count} tensors; new: {', '.join(new) or 'none'}")
        if seen := sorted({*data.split["validation"]} & {*parent["trained_on"]}):
            print(f"{len(seen)} validation cases were learned from there, and score too well: {', '.join(seen)}")


class StillEncoders(Callback):
    """Keeps the encoders, of a U-Net its way down, as they are for the first epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.parameters: list[nn.Parameter] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose by the epoch; the optimizer passes over parameters without gradient."""
        network: Any = pl_module.network
        if self.parameters is None:
            encoders = [part.features for part in network.modules() if isinstance(part, Encoder2d)]
            learning = (one for encoder in encoders or [network.down] for one in encoder.parameters())
            self.parameters = [parameter for parameter in learning if parameter.requires_grad]
        for parameter in self.parameters:
            parameter.requires_grad_(trainer.current_epoch >= self.epochs)
        network.train()  # what does not learn is in evaluation mode

    on_train_start = on_train_epoch_start  # a run may go on within an epoch
