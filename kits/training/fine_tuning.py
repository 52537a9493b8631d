"""Trainings that begin with another's weights: what is taken over, what is new, what stays still."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from kits.config import plain
from kits.config.schema.base import text
from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.core.plain_files import misfit
from kits.data.cache import file_digest
from kits.models.checkpoint import network_weights, open_checkpoint
from kits.models.encoder2d import Encoder2d
from kits.runs.folder import BEST
from kits.runs.resuming import Start
from kits.training.datamodule import KitsDataModule
from kits.training.modules import StageModule

# Of a model what shapes no weight but its heads'.
FREE = ("classes", "deep_supervision", "freeze_statistics", "freeze_stages", "slices_at_once", "checkpointing")


def inherit(module: StageModule[Any], start: Start) -> None:
    """Give a network what fits of the weights that `init` names, unless it goes on, and note whence.

    Raises:
        KitsError: `read_parent` refuses it, weights do not fit though the classes are the same, or are no numbers.
    """
    if start.content is not None:
        if noted := start.content["hyper_parameters"].get("parent"):
            module.hparams["parent"] = noted
        return
    if module.options.init is None:
        return
    path, content = read_parent(module.options)
    theirs, trained_on = content["hyper_parameters"]["model"], content["hyper_parameters"]["trained_on"]
    own, model = module.network.state_dict(), plain(module.options.model)
    fitting = {name: value for name, value in network_weights(content).items() if name in own and value.shape == own[name].shape}
    new = [name for name in own if name not in fitting]
    same = all(model.get(key) == theirs.get(key) for key in ("classes", "deep_supervision"))
    if (new and same) or not all(torch.isfinite(value).all() for value in fitting.values()):
        what = f"its weights do not fit, such as {new[0]}" if new and same else "its weights are no numbers"
        raise KitsError(f"init={path}: {what}; give a checkpoint of kits.train")
    module.network.load_state_dict(fitting, strict=False)
    provenance = {"path": str(path.absolute()), "sha256": file_digest(path), "trained_on": trained_on}
    module.hparams["parent"] = {**provenance, "new": new}


def read_parent(options: Coarse | Fine) -> tuple[Path, dict[str, Any]]:
    """Read the checkpoint that `init` names, a run folder's best or the file itself.

    Raises:
        KitsError: it is none of this stage, its network is another one, or it saw HU or grids otherwise.
    """
    path = Path(str(options.init))
    path = path / BEST if path.is_dir() else path
    content = open_checkpoint(path)
    config = content["hyper_parameters"]
    if config["stage"] != options.stage:
        raise KitsError(
            f"init={path}: is of the {config['stage']} stage, and this one is {options.stage}; give one of this stage"
        )
    if wrong := misfit(config, {"data": dict, "model": {"name": str}, "trained_on": [str]}):
        raise KitsError(f"init={path}: damaged or edited ({wrong}); give a checkpoint of kits.train")
    ours, theirs = shaping(plain(options)), shaping(config)
    if key := next((key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)), None):
        was = f"was trained with {key}={text(theirs.get(key))}, and here it is {text(ours.get(key))}"
        raise KitsError(f"init={path}: {was}; give the same, or another init")
    return path, content


def shaping(config: Mapping[str, Any]) -> dict[str, object]:
    """Keep, by dotted key, what two trainings must have in common to share weights."""
    data = ("window_hu", "coarse_size", "coarse_z_mm") if config["stage"] == "coarse" else ("window_hu",)
    kept = {f"data.{key}": config["data"].get(key) for key in data}
    kept |= {f"model.{key}": value for key, value in config["model"].items() if key not in FREE}
    if isinstance(sources := kept.get("model.sources"), list):
        kept["model.sources"] = [{**one, "weights": None} if isinstance(one, dict) else one for one in sources]
    return kept


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
