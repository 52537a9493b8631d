"""Configurations composed by Hydra, and what it refuses told in one line that names the key and the nearest known one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kits.config.conf_files import choices_of, conf_dir, groups, one_line, resolved
from kits.config.quoting import with_paths_quoted
from kits.config.schema import check, schema_of
from kits.config.schema.telling import keys_of, suggestion
from kits.config.usage import PLUGINS, groups_of
from kits.core.errors import KitsError


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


def checked(name: str, overrides: list[str]) -> Any:
    """Compose as `compose` does, and return the typed options.

    Raises:
        KitsError: also where the schema refuses it.
    """
    config, choices = with_choices(name, overrides)
    return check(name, config, choices)


def with_choices(name: str, overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain configuration, and by group what was chosen. Raises KitsError as `compose`."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import flag_override
    from omegaconf.errors import OmegaConfBaseException

    overrides = spelled_out(name, overrides)
    with composing():
        try:
            config = hydra.compose(name, overrides=overrides, return_hydra_config=True)
            choices = dict(config.hydra.runtime.choices)
            with flag_override(config, ["struct", "readonly"], False):
                del config["hydra"]
            return resolved(config), choices
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise KitsError(explain(error, name, overrides)) from error


def spelled_out(name: str, overrides: list[str]) -> list[str]:
    """Overrides as Hydra takes them: paths in quotes, and `split=X` as `split.source=X` for a command that takes a file there.

    Other commands choose from the group of that name, and Hydra looks for X in the group whichever command it is.
    """
    from omegaconf import OmegaConf

    here = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    assert isinstance(here, dict)
    short = {key for key, value in here.items() if isinstance(value, dict) and "source" in value}
    parts = [override.partition("=") for override in overrides]
    whole = [f"{key}.source={value}" if equals and key in short else f"{key}{equals}{value}" for key, equals, value in parts]
    return with_paths_quoted(whole)


def explain(error: Exception, name: str, overrides: list[str]) -> str:
    """What Hydra refuses as one line that names the key, what is allowed and what to do."""
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        return f"{found[1]}: no such key{suggestion(found[1], list(dict.fromkeys(keys_of(schema_of(name), named(overrides)))))}"
    if found := re.search(r"Could not find '([^']+)/([^'/]*)'", message):
        group, _, folder = (found[1], "", "") if found[1] in PLUGINS else found[1].partition("/")
        offered = re.search(r"Available options in '[^']+':\n(.*?)\nConfig search path", message, re.DOTALL)
        names = offered[1].split() if offered else choices_of(group)
        return f"{group}={folder}{'/' if folder else ''}{found[2]}: no such choice; take one of {', '.join(names)}"
    if found := re.search(r"You must specify '([^']+)', e\.g,.*Available options:\s*(.*)", message, re.DOTALL):
        return f"{found[1]}: no value given; add {found[1]}=... with one of {', '.join(found[2].split())}"
    if found := re.search(r"Multiple values for (\w+)\.|force-add of config groups is not supported: '\+\+(\w+)=", message):
        group = found[1] or found[2]
        return f"+{group}: is chosen without a plus; give {group}=... with one of {', '.join(choices_of(group))}"
    if found := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", message):
        again = f"; for a training with each: python -m kits.train -m {shlex.join(overrides)}" if name == "train" else ""
        return f"{found[1]}: several values where one is taken; a list has brackets, key=[a,b]{again}"
    if "does not support sweep type" in message:
        interval = next((override for override in overrides if "interval(" in override), "interval")
        return f"{interval}: a grid takes values, as in key=1,2,3; to search an interval add hydra/sweeper=tpe"
    found = re.search(r"(?:Error parsing override '|Lexer\w+: )(.*?)'?\n", message)
    unread = found[1] if found else next((one for one in overrides if one.startswith("=") or _fault(one) in message), None)
    if unread:
        return f"{unread}: cannot be read; give key=value, and quote what is no plain word: \"key='a text'\""
    return one_line(message)


def _fault(override: str) -> str:
    """What Hydra says of an override alone that it cannot parse; of others, what no message holds."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        return str(error)
    return "\0"


def named(overrides: list[str]) -> dict[str, Any]:
    """What overrides say of choices, as far as the schema must know it to tell which keys there are."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    chosen = {group: choice for group, _, choice in pairs if group in groups()}
    return {group: choice if group == "stage" else {"name": choice, "kind": choice} for group, choice in chosen.items()}


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
