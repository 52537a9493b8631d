"""Configurations composed by Hydra, and its refusals told in one line with the nearest key."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kits.config.conf_files import choices_of, conf_dir, groups, one_line
from kits.config.quoting import quote_paths
from kits.config.schema import check, resolved, schemas_of
from kits.config.schema.older import as_meant
from kits.config.schema.own import TARGET
from kits.config.schema.refusals import is_open, keys_of, path_keys, suggestion
from kits.config.usage import PLUGINS
from kits.core.errors import KitsError

# ${length:${data.classes}} in YAML: as many as the list has entries.
OmegaConf.register_new_resolver("length", len, replace=True)
# ${outputs:${stage},${data.classes}}: classes of a stage's network.
OmegaConf.register_new_resolver("outputs", lambda stage, classes: 1 if stage == "coarse" else len(classes), replace=True)

# ${or_nothing:${fold}}: a value inside a text, and nothing where it is null.
OmegaConf.register_new_resolver("or_nothing", lambda value: "" if value is None else value, replace=True)


def compose(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the plain configuration of `conf/<name>.yaml` under these overrides.

    Raises:
        KitsError: an override cannot be parsed, names an unknown key or an unknown choice, or a mandatory value is missing.
    """
    return with_choices(name, overrides)[0]


def checked(name: str, overrides: Sequence[str], *, prepared: bool = True) -> Any:
    """Compose as `compose` does, and return the typed options; `prepared` as for `check`."""
    return check(name, *with_choices(name, overrides), prepared=prepared)


def with_newer_keys(name: str, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a command's earlier configuration means by the keys that it lacks.

    That is what `OLDER` says, else today's default.
    """
    # The entries of an augmentation are no keys of ours.
    choices = [f"stage={earlier['stage']}", "augmentation=none"] if name == "train" else []
    for group in groups():
        part = earlier.get(group)
        choice = None if not isinstance(part, dict) else "own" if TARGET in part else part.get("name", part.get("kind"))
        if choice in choices_of(group):
            choices.append(f"{group}={choice}")
    return with_choices(name, choices, as_meant(earlier))[0]


def with_choices(
    name: str, overrides: Sequence[str], earlier: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compose, under the values of an earlier configuration; tell by group what was chosen too."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import flag_override
    from omegaconf.errors import OmegaConfBaseException

    overrides = with_paths(name, overrides)
    inside = GlobalHydra.instance().is_initialized()  # of Hydra's own job
    with nullcontext() if inside else hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        try:
            config = hydra.compose(name, overrides=overrides, return_hydra_config=True)
            choices = dict(config.hydra.runtime.choices)
            with flag_override(config, ["struct", "readonly"], False):
                del config["hydra"]
                merged = OmegaConf.merge(config, earlier or {})
            assert isinstance(merged, DictConfig)
            return resolved(merged), choices
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise KitsError(explain(error, name, overrides)) from error


def values_of(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Read overrides as Hydra does but compose nothing: by key its value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        found = OverridesParser.create().parse_overrides(with_paths(name, overrides))
        return resolved(OmegaConf.create({one.key_or_group: one.value() for one in found}))
    except HydraException as error:
        raise KitsError(explain(error, name, overrides)) from error


def typed_overrides() -> list[str]:
    """List this command line's overrides as Hydra has read them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def with_paths(name: str, overrides: Sequence[str]) -> list[str]:
    """Quote the paths among a command's overrides for Hydra; see `quote_paths`."""
    return quote_paths(overrides, {key for schema in schemas_of(name) for key in path_keys(schema)})


def explain(error: Exception, name: str, overrides: Sequence[str]) -> str:
    """Tell what Hydra refuses in one line that names the key, what is allowed and what to do."""
    message = str(error)
    keyless = next((override for override in overrides if override.startswith("=")), None)
    if unread := getattr(error, "override", keyless):  # Hydra's OverrideParseException knows which
        quotes = "\"key='a text'\", 'key={a:[1,2],b:3}'"  # without them a shell takes braces apart
        return f"{unread}: cannot be read; give key=value, and quote what is no plain word: {quotes}"
    keys = [key for schema in schemas_of(name) for key in keys_of(schema, choices_in(overrides))]
    if found := re.search(r"Could not delete from config. '([^']+)' does not exist", message):
        what = "is null already; leave this out" if found[1] in keys else f"no such key{suggestion(found[1], keys)}"
        return f"~{found[1]}: {what}"
    if found := re.search(r"Could not override '([^']+)'", message):
        wrong = found[1]
        if wrong in groups():  # what was given in braces is known to OmegaConf
            wrong = getattr(error.__cause__, "full_key", None) or wrong
        above, _, leaf = wrong.rpartition(".")
        if any(is_open(schema, wrong) for schema in schemas_of(name)):
            return f"{wrong}: stands in no file of conf/; give +{wrong}=..."
        if leaf == TARGET and "own" in choices_of(above):
            return f"{wrong}: a part of your own has a choice of its own; give {above}=own {wrong}=MODULE.NAME"
        if wrong in keys and above not in groups():
            value = next(value for key, _, value in (one.partition("=") for one in overrides) if key.lstrip("+") == wrong)
            return f"{wrong}: {above} is null; give {above}={{{leaf}:{value}}}"
        return f"{wrong}: no such key{suggestion(wrong, keys)}"
    if found := re.search(r"An item is already at '([^']+)'", message):
        return f"+{found[1]}: is there already; give {found[1]}=... without a plus"
    if found := re.search(r"Could not find '([^']+)/([^'/]*)'", message):
        group, _, folder = (found[1], "", "") if found[1] in PLUGINS else found[1].partition("/")
        offered = re.search(r"Available options in '[^']+':\n(.*?)\nConfig search path", message, re.DOTALL)
        names = offered[1].split() if offered else choices_of(group)
        way = f"give study={found[2]}, or" if name == "pipeline" and group == "experiment" else "take"
        return f"{group}={folder}{'/' if folder else ''}{found[2]}: no such choice; {way} one of {', '.join(names)}"
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
    return one_line(message)


def choices_in(overrides: Sequence[str]) -> dict[str, Any]:
    """Tell what overrides say of choices, as far as the schema must know it to tell which keys there are."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    chosen = {group: choice for group, _, choice in pairs if group in groups()}
    return {group: choice if group == "stage" else {"name": choice, "kind": choice} for group, choice in chosen.items()}
