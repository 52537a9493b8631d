"""Checkpoints: weights plus a plain configuration, and nothing that runs when it is opened."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kits.config import one_line
from kits.config.schema import parse
from kits.config.schema.exported import Exported
from kits.config.schema.model import Model
from kits.core.errors import KitsError
from kits.core.plain_files import misfit
from kits.models import build_network, plain_weights
from kits.models.settings import SAFETENSORS, check_format, edited, settings_of

# The network as an attribute of its LightningModule.
PREFIX = "network."
CONTENT = {"hyper_parameters": {"kits_format": int, "stage": str}, "state_dict": {str: Tensor}}


def open_checkpoint(path: Path, stage: str | None = None) -> dict[str, Any]:
    """Read a checkpoint that kits.train wrote, opened with `weights_only=True`.

    Args:
        stage: the one that it must be of; None takes either.

    Raises:
        KitsError: no such file, not a checkpoint of this project, of the other stage, or of another format.
    """
    if path.is_dir():
        raise KitsError(f"{path}: is a folder; give a checkpoint in it, of a run {path / 'best.ckpt'}")
    if not path.is_file():
        raise KitsError(f"{path}: no such checkpoint; kits.train writes best.ckpt into its run folder")
    try:
        check_sums(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of readers of pickles and zips, which raise whatever a damaged byte leads them to
        raise KitsError(
            f"{path}: not a checkpoint that can be opened safely ({reason_of(error)}); give one that kits.train wrote"
        ) from error
    if wrong := misfit(content, CONTENT):
        raise KitsError(f"{path}: not a checkpoint of this project ({wrong}); give one that kits.train wrote")
    check_format(path, content["hyper_parameters"], stage)
    return content


def check_sums(path: Path) -> None:
    """Hold every part of a file of torch.save against its checksum, which torch does not look at.

    Raises:
        Exception: one is damaged, or the directory of the parts is.
    """
    if not zipfile.is_zipfile(path):
        return  # torch says what it is
    with zipfile.ZipFile(path) as archive:
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
        if packed or archive.testzip() is not None:
            raise ValueError("it is damaged")


def reason_of(error: Exception) -> str:
    """Tell why a file was not opened, without torch's advice to open it all the same."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it holds {foreign[1]}, and only tensors and plain values are read"
    if isinstance(error, pickle.UnpicklingError):
        return "no file of torch.save"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def load_network(path: Path, stage: str, device: torch.device | str) -> tuple[nn.Module, Exported]:
    """Load a stage's trained network, in evaluation mode, and the settings that it is predicted with.

    Its configuration may only name the project's own networks.

    Raises:
        KitsError: `open_checkpoint` refuses the file, or its weights are not those of its network.
    """
    if path.suffix == SAFETENSORS:
        config, weights = plain_weights.read_weights(path)
        check_format(path, config, stage)
    else:
        content = open_checkpoint(path, stage)
        config, weights = content["hyper_parameters"], network_weights(content)
    try:
        model: Model = parse(Model, config.get("model"), "model")
        network = build_network(model, pretrained=False)
    except KitsError as error:
        raise KitsError(f"{path}: {error}") from error
    except Exception as error:  # of options that no training has taken: it depends on the network what they raise
        raise edited(path, f"no network has its options: {one_line(error)[:100]}") from error
    settings = settings_of(path, config, model, network)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise KitsError(f"{path}: its weights are no numbers; give a checkpoint of a training that did not diverge")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise KitsError(f"{path}: its weights do not fit its own configuration; the file is damaged or edited") from error
    return network.to(device).eval(), settings


def network_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take the network's weights out of an open checkpoint, by their names within the network."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in content["state_dict"].items() if name.startswith(PREFIX)}
