"""Checkpoints: weights plus a plain configuration, and nothing that runs when it is opened."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kits.config import check_classes, one_line
from kits.core.errors import KitsError
from kits.core.plain_files import misfit
from kits.models import build_network

# Raised when a configuration changes its meaning, so that an older file is refused and not misread.
FORMAT = 3
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
    content: dict[str, Any] = read_containers(path)
    if wrong := misfit(content, CONTENT):
        raise KitsError(f"{path}: not a checkpoint of this project ({wrong}); give one that kits.train wrote")
    check_config(path, content["hyper_parameters"], stage)
    return content


def check_config(path: Path, config: dict[str, Any], stage: str | None) -> None:
    """Refuse a file's configuration of another format or, where one is given, of another stage.

    Raises KitsError.
    """
    if config["kits_format"] != FORMAT:
        raise KitsError(
            f"{path}: written in format {config['kits_format']}, this version reads {FORMAT};"
            " train it again, or take the version of this project that wrote it"
        )
    if stage is not None and config["stage"] != stage:
        raise KitsError(f"{path}: a checkpoint of the {config['stage']} stage, given as {stage}=; are the two swapped?")


def read_containers(path: Path) -> Any:
    """Read a file of torch.save that holds tensors and plain containers only.

    Raises:
        KitsError: no such file, or it holds anything else.
    """
    if not path.is_file():
        raise KitsError(f"{path}: no such checkpoint; kits.train writes best.ckpt into its run folder")
    try:
        check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of readers of pickles and zips, which raise whatever a damaged byte leads them to
        raise KitsError(
            f"{path}: not a checkpoint that can be opened safely ({reason_of(error)}); give one that kits.train wrote"
        ) from error


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
    """Tell why a file was not opened, without torch's advice.

    Torch's own text goes on to say how to open it all the same, which is not what to do here.
    """
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it holds {foreign[1]}, and only tensors and plain values are read"
    if isinstance(error, pickle.UnpicklingError):
        return "no file of torch.save"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def load_network(path: Path, stage: str, device: torch.device | str) -> tuple[nn.Module, dict[str, Any]]:
    """Load a stage's trained network, in evaluation mode, and the configuration of its training.

    Its configuration may only name the project's own networks.

    Raises:
        KitsError: `open_checkpoint` refuses the file, or its weights are not those of its network.
    """
    from kits.models import plain_weights

    if path.suffix == plain_weights.SUFFIX:
        config, weights = plain_weights.read_weights(path)
        check_config(path, config, stage)
    else:
        content = open_checkpoint(path, stage)
        config, named = content["hyper_parameters"], content["state_dict"]
        weights = {name.removeprefix(PREFIX): tensor for name, tensor in named.items() if name.startswith(PREFIX)}
    network = described_network(path, config)
    check_settings(path, config, network)
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise KitsError(f"{path}: its weights are no numbers; give a checkpoint of a training that did not diverge")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise KitsError(f"{path}: its weights do not fit its own configuration; the file is damaged or edited") from error
    return network.to(device).eval(), config


def described_network(path: Path, config: dict[str, Any]) -> nn.Module:
    """Build the network that a file's configuration describes, untrained.

    Raises:
        KitsError: it describes none.
    """
    try:
        return build_network(config["model"], pretrained=False)
    except KitsError as error:
        raise KitsError(f"{path}: {error}") from error
    except Exception as error:  # of options that no training has taken: it depends on the network what they raise
        raise KitsError(f"{path}: damaged or edited (no network has its options: {one_line(error)[:100]})") from error


def network_facts(network: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
    """Collect what prediction must know of a network beside its configuration."""
    return {
        "classes": config["model"]["classes"],
        "in_plane_multiple": network.in_plane_multiple,
        "fixed_size": bool(getattr(network, "fixed_size", False)),
        "sources": len(getattr(network, "sources", ())),
        "reach": getattr(network, "reach", None),
    }


def check_settings(path: Path, config: dict[str, Any], network: nn.Module) -> None:
    """Check what prediction reads of a configuration by the rules that an exported file has to keep.

    Raises:
        KitsError: a key lacks, or has a value that it may not have.
    """
    from kits.models.onnx_files import check_values, edited, prediction_settings

    fine = config["stage"] == "fine"
    groups = {"data": dict, "inference": dict, "roi": dict, **({"postprocess": dict} if fine else {})}
    if wrong := misfit(config, groups, "its configuration"):
        raise edited(path, wrong)
    try:
        if fine:
            check_classes(config["data"]["classes"], config["model"]["classes"])
        kept = prediction_settings(config, network_facts(network, config))
    except (KitsError, TypeError, ValueError) as error:
        raise edited(path, one_line(error)) from error
    check_values(path, kept)
