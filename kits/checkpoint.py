"""Checkpoints: weights plus a plain configuration, and nothing that runs when it is opened."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kits.errors import KitsError
from kits.models import build_network, completed

# Raised when a configuration changes its meaning, so that an older file is refused and not misread.
FORMAT = 1
# The network as an attribute of its LightningModule.
PREFIX = "network."


def load_network(path: Path, stage: str, device: torch.device | str) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a stage, in evaluation mode, and the configuration that it was trained with.

    The file is opened with `weights_only=True`, and its configuration may only name the project's own networks.

    Raises:
        KitsError: no such file, not a checkpoint of this project, of the other stage, or of another format.
    """
    if not path.is_file():
        raise KitsError(f"{path}: no such checkpoint; kits.train stage={stage} writes best.ckpt into its run folder")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise KitsError(
            f"{path}: not a checkpoint that can be opened safely ({reason}); give one that kits.train wrote"
        ) from error
    config = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(config, dict) or "kits_format" not in config or "state_dict" not in content:
        raise KitsError(f"{path}: not a checkpoint of this project; give one that kits.train wrote")
    if config["kits_format"] != FORMAT:
        raise KitsError(f"{path}: written in format {config['kits_format']}, this version reads {FORMAT}; train it again")
    if config["stage"] != stage:
        raise KitsError(f"{path}: a checkpoint of the {config['stage']} stage, given as {stage}=; are the two swapped?")
    network = build_network(completed(config["model"]), pretrained=False)
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in content["state_dict"].items() if name.startswith(PREFIX)}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise KitsError(f"{path}: its weights do not fit its own configuration; the file is damaged or edited") from error
    return network.to(device).eval(), config
