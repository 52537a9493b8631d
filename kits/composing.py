"""Configurations composed by Hydra, and what it refuses told in one line that names the key and the nearest known one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kits.config import all_keys, choices_of, conf_dir, defaults_of, nearest, one_line, plain
from kits.config.schema import check
from kits.errors import KitsError
from kits.quoting import with_paths_quoted
from kits.usage import BY_STAGE


@contextmanager
def composing() -> Iterator[None]:
    """Where Hydra composes; inside its own job, where it is ready already, too."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            yield


def compose(name: str, overrides: list[str]) -> dict[str, Any]:
    """The plain configuration of `conf/<name>.yaml` under these overrides.

    Raises:
        KitsError: an override cannot be parsed, names an unknown key or an unknown choice, or a mandatory value is missing.
    """
    return with_choices(name, overrides)[0]


def checked(name: str, overrides: list[str]) -> dict[str, Any]:
    """As `compose`, and what is wrong with the configuration told as far as it can be before the data are seen.

    Raises:
        KitsError: also where a key is unknown, a value none that its key may have, or values do not go together.
    """
    config, choices = with_choices(name, overrides)
    check(name, config, choices)
    return config


def with_choices(name: str, overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain configuration, and by group what was chosen. Raises KitsError as `compose`."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import flag_override
    from omegaconf.errors import OmegaConfBaseException

    overrides = spelled_out(name, overrides)
    check_readable(name, overrides)
    with composing():
        try:
            config = hydra.compose(name, overrides=overrides, return_hydra_config=True)
            choices = dict(config.hydra.runtime.choices)
            with flag_override(config, ["struct", "readonly"], False):
                del config["hydra"]
            return plain(config), choices
        except (HydraException, OmegaConfBaseException) as error:
            raise KitsError(explain(str(error), name, overrides)) from error


def spelled_out(name: str, overrides: list[str], *, sweeps: bool = False) -> list[str]:
    """Overrides as Hydra takes them: paths in quotes, and `split=X` as `split.source=X` for a command that takes a file there.

    Other commands choose from the group of that name, and Hydra looks for X in the group whichever command it is.
    """
    from omegaconf import OmegaConf

    here = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    assert isinstance(here, dict)
    short = {key for key, value in here.items() if isinstance(value, dict) and "source" in value}
    parts = [override.partition("=") for override in overrides]
    whole = [f"{key}.source={value}" if equals and key in short else f"{key}{equals}{value}" for key, equals, value in parts]
    return with_paths_quoted(whole, sweeps=sweeps)


def check_readable(name: str, overrides: list[str]) -> None:
    """Raise KitsError where an override is none, or gives several values to a command that takes one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
        except HydraException:
            parsed = None
        if parsed is None or not parsed.key_or_group:
            raise KitsError(f"{override}: cannot be read; give key=value, and quote what is no plain word: \"key='a text'\"")
        if parsed.is_sweep_override():
            again = f"; for a training with each: python -m kits.train -m {shlex.join(overrides)}" if name == "train" else ""
            raise KitsError(f"{override}: several values where one is taken; a list has brackets, key=[a,b]{again}")


def explain(message: str, name: str, overrides: list[str]) -> str:
    """Hydra's message as one line that names the key, what is allowed and what to do."""
    unknown_key = re.search(r"Could not override '([^']+)'", message)
    if unknown_key:
        return f"{unknown_key[1]}: no such key{nearest(unknown_key[1], all_keys(sketch(name, overrides)))}"
    choice = re.search(r"Could not find '([^'/]+)/([^']+)'", message)
    if choice:
        return f"{choice[1]}={choice[2]}: no such choice; take one of {', '.join(choices_of(choice[1]))}"
    group = re.search(r"You must specify '([^']+)', e\.g,.*Available options:\s*(.*)", message, re.DOTALL)
    if group:
        return f"{group[1]}: no value given; add {group[1]}=... with one of {', '.join(group[2].split())}"
    return one_line(message)


def groups_of(name: str) -> dict[str, Any]:
    """The groups that a command chooses from: each with its choice, `???` where it needs one, None, or BY_STAGE."""
    chosen = defaults_of(conf_dir() / f"{name}.yaml")
    if "stage" in chosen:
        chosen |= dict.fromkeys(defaults_of(conf_dir() / "stage" / "coarse.yaml"), BY_STAGE)
    return chosen


def sketch(name: str, overrides: list[str]) -> dict[str, Any]:
    """The configuration with only the group choices applied, and where a group needs one its first: nothing is resolved.

    Empty where a choice is unknown: what asks for it is optional, and a second mistake must not hide the first.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    chosen = groups_of(name)
    given = [override for override in overrides if override.partition("=")[0].lstrip("+") in chosen]
    named = {override.partition("=")[0] for override in given}
    needed = [f"{group}={choices_of(group)[0]}" for group, choice in chosen.items() if choice == "???" and group not in named]
    try:
        with composing():
            config = hydra.compose(name, overrides=[*([] if "experiment" in named else needed), *given])
    except (HydraException, OmegaConfBaseException):
        return {}
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
