"""The run whose weights a training begins with: `init`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from kits.config import plain
from kits.config.schema.base import text
from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.core.plain_files import misfit
from kits.data.cache import file_digest
from kits.models.checkpoint import network_weights, open_checkpoint
from kits.runs.folder import BEST

# Of a model what shapes no weight but its heads'.
FREE = ("classes", "deep_supervision", "freeze_statistics", "freeze_stages", "slices_at_once", "checkpointing")


@dataclass(frozen=True)
class Parent:
    """A trained network to begin with.

    Attributes:
        path: of its checkpoint.
        sha256: of that file.
        trained_on: the cases that it has learned from, those of its own parents among them.
        model: the options of its network, plain.
        weights: by name within the network.
    """

    path: Path
    sha256: str
    trained_on: list[str]
    model: Mapping[str, Any] = field(repr=False)
    weights: dict[str, Tensor] = field(repr=False)


def read_parent(options: Coarse | Fine) -> Parent | None:
    """Read the checkpoint that `init` names, a run folder's best or the file itself.

    Returns:
        None where it names none.

    Raises:
        KitsError: it is none of this stage, its network is another one, or it saw HU or grids otherwise.
    """
    if options.init is None:
        return None
    path = Path(options.init)
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
    return Parent(path, file_digest(path), config["trained_on"], config["model"], network_weights(content))


def shaping(config: Mapping[str, Any]) -> dict[str, object]:
    """Keep, by dotted key, what two trainings must have in common to share weights."""
    data = ("window_hu", "coarse_size", "coarse_z_mm") if config["stage"] == "coarse" else ("window_hu",)
    kept = {f"data.{key}": config["data"].get(key) for key in data}
    kept |= {f"model.{key}": value for key, value in config["model"].items() if key not in FREE}
    if isinstance(sources := kept.get("model.sources"), list):
        kept["model.sources"] = [{**one, "weights": None} if isinstance(one, dict) else one for one in sources]
    return kept
