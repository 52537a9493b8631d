"""One schema for each choice of each group of conf/.

A composed configuration is held against it before anything slow is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from kits.config.conf_files import choices_of, conf_dir, one_line
from kits.config.schema.base import Number, Options, Switch, Text, refuse, text
from kits.config.schema.own import TARGET
from kits.config.schema.refusals import chosen, refusal
from kits.core.errors import KitsError


def parse(schema: Any, config: Any, group: str = "") -> Any:
    """Parse a plain configuration, or a part of it, into typed options.

    Args:
        schema: a model, or a union of them.
        config: plain.
        group: what part of the whole it is, for the message.

    Raises:
        KitsError: a key is unknown or lacks, a value is none that its key may have, or values do not go together.
    """
    try:
        return TypeAdapter(schema).validate_python(config)
    except ValidationError as error:
        raise refusal(error, schema, config, group) from None


def resolved(config: DictConfig) -> dict[str, Any]:
    """Resolve every interpolation, and give dicts, lists and scalars.

    Raises:
        KitsError: a mandatory value (`???`) is missing, or an interpolation names nothing.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        container = None if missing else OmegaConf.to_container(config, resolve=True)
    except InterpolationResolutionError as error:
        raise KitsError(f"configuration: {one_line(error)}") from error
    if missing:
        raise KitsError(f"{', '.join(missing)}: no value given; add {' '.join(f'{key}=...' for key in missing)}")
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check(name: str, config: dict[str, Any], choices: Mapping[str, Any], *, prepared: bool = True) -> Any:
    """Hold the configuration of the command `name` against its schema, and return its typed options.

    A measurement that holds whole groups of a training has no schema but its defaults, and gets its plain configuration.

    Args:
        config: plain.
        choices: by group what was chosen.
        prepared: the data of a training must be there already, and its out-of-fold boxes.

    Raises:
        KitsError: the text names the key, what is wrong and what is allowed.
    """
    for group, choice in choices.items():
        part = config.get(group)
        for key in ("name", "kind"):
            # A choice of the user's own folder may be named otherwise than its file.
            if isinstance(part, dict) and TARGET not in part and choice in choices_of(group) and part.get(key, choice) != choice:
                names = ", ".join(choices_of(group))
                raise KitsError(f"{group}.{key}={text(part[key])}: is chosen as a whole; give {group}=... with one of {names}")
    if name == "train" and isinstance(model := config.get("model"), dict):
        stage, networks = config.get("stage"), {"coarse": "unet3d", "fine": "finenet"}
        # The keys of the other stage's network would all be told as wrong.
        if stage in networks and model.get("name") in networks.values() and model["name"] != networks[stage]:
            raise KitsError(f"model={model['name']}: stage={stage} trains {networks[stage]}; leave model out")
    schema = schema_of(name)
    fitting = chosen(schema, config)  # a training has two schemas, and building the other one takes time
    options = parse(fitting[0] if len(fitting) == 1 else schema, config)
    # What the other commands read of a data set has been prepared, or is named by keys of its own.
    key, root = ("data.root", config["data"]["root"]) if name == "prepare" else ("root", config.get("root"))
    if root is not None and not Path(root).is_dir():
        raise refuse(key, root, "no such folder; give the data set's")
    if name == "train":
        from kits.config.own_parts import KINDS, find
        from kits.config.schema.training import check_files

        check_files(options, prepared=prepared)
        for group in KINDS:
            find(config.get(group), group)
    return options if isinstance(options, Options) else config


def schema_of(name: str) -> Any:
    """Find the schema of a command's configuration; where it has none of its own, one like its defaults."""
    if name == "train":
        from kits.config.schema.training import Train

        return Train
    from kits.config.schema.commands import COMMANDS

    if name in COMMANDS:
        return COMMANDS[name]
    own = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"), resolve=False)
    assert isinstance(own, dict)
    return like({key: value for key, value in own.items() if key != "defaults"})


def schemas_of(name: str) -> list[Any]:
    """List the schemas whose keys a command takes: kits.pipeline and kits.crossval take kits.train's too."""
    return [schema_of(name), *([schema_of("train")] if name in ("pipeline", "crossval") else [])]


def like(default: Any) -> Any:
    """Make a schema for values of a default's kind; null, `???` and an interpolation take anything."""
    if isinstance(default, dict):
        fields: dict[str, Any] = {key: (like(value), ...) for key, value in default.items()}
        return create_model("Like", __config__=ConfigDict(frozen=True, extra="allow"), **fields)
    if isinstance(default, bool):
        return Switch
    if isinstance(default, int | float):
        return Number
    if isinstance(default, str) and default != "???" and "${" not in default:
        return Text
    return list if isinstance(default, list) else Any
