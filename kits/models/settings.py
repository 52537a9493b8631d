"""The settings of a prediction that a file of weights holds beside them, parsed once when it is read.

A checkpoint, a .safetensors and an ONNX file hold them as plain containers, and nothing that runs when they are opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kits.config import plain
from kits.config.schema import parse
from kits.config.schema.exported import Exported, ExportedCoarse, ExportedFine, ExportedOptions
from kits.config.schema.model import Model
from kits.config.schema.older import as_meant
from kits.core.errors import KitsError

# Raised when a configuration changes its meaning, so that an older file is refused and not misread.
FORMAT = 3
ONNX, SAFETENSORS = ".onnx", ".safetensors"
# Where in an exported file's metadata the settings stand, as JSON, and in them the SHA-256 of all that the file says: a weight
# with a flipped bit is a number like any other.
METADATA, DIGEST = "kits", "sha256"
STAGES: dict[str, type[ExportedOptions]] = {"coarse": ExportedCoarse, "fine": ExportedFine}


def is_exported(path: Path | str) -> bool:
    """Tell whether a file is an ONNX network by the ending of its name."""
    return Path(path).suffix.lower() == ONNX


def edited(path: Path, what: str) -> KitsError:
    """Return the refusal of a file that kits.export, or kits.train, has not written so."""
    writer = "export" if path.suffix.lower() in (ONNX, SAFETENSORS) else "train"
    return KitsError(f"{path}: damaged or edited ({what}); give one that kits.{writer} wrote")


def check_format(path: Path, config: Mapping[str, Any], stage: str | None) -> None:
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


def parse_settings(path: Path, config: Mapping[str, Any]) -> Exported:
    """Parse the settings that a file holds.

    Raises:
        KitsError: a key lacks, is unknown, or has a value that it may not have.
    """
    try:
        settings: Exported = parse(Exported, as_meant(config))
    except KitsError as error:
        raise edited(path, f"its configuration: {error}") from error
    return settings


def settings_of(path: Path, config: Mapping[str, Any], model: Model, network: nn.Module) -> Exported:
    """Parse what a prediction needs of a training's configuration: nothing of the machine that trained.

    Args:
        model: the options of `network`.

    Raises:
        KitsError: as `parse_settings`.
    """
    facts = {
        "classes": model.classes,
        "in_plane_multiple": network.in_plane_multiple,
        "fixed_size": bool(getattr(network, "fixed_size", False)),
        "sources": len(getattr(network, "sources", ())),
        "reach": getattr(network, "reach", None),
    }
    whole = {**config, "model": model, "network": facts}
    if isinstance(parent := whole.get("parent"), dict):
        whole["parent"] = {"trained_on": parent.get("trained_on")}
    kept = {}
    for name, part in STAGES[config["stage"]].model_fields.items():
        keys = getattr(part.annotation, "model_fields", None)
        if name in whole:
            group = whole[name]
            kept[name] = {key: group[key] for key in keys if key in group} if keys and isinstance(group, dict) else group
    return parse_settings(path, kept)


def to_plain(settings: Exported, *, model: bool) -> dict[str, Any]:
    """Give settings as plain containers, those that build the network only with `model`."""
    return {key: value for key, value in plain(settings).items() if model or key != "model"}
