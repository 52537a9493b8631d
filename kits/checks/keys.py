"""A configuration against conf/: keys that nothing reads, keys that lack, and values of the wrong kind, each by its key."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kits.checks.rules import ANYTHING, RULES, derived, text
from kits.config import all_keys, choices_of, nearest
from kits.data.augmenting import check as check_augmentation
from kits.errors import KitsError

# Interpolations of other groups, which are looked at under their own names.
ELSEWHERE = ("data.split", "data.augmentation")
# Groups whose entries are looked at by someone else: Lightning's options, which are not all in conf/; augmentations by any name.
TRAINER, AUGMENTATION = "trainer", "augmentation"
# What a group's choice is called in its own file.
NAMES = ("name", "kind")


def check_keys(config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise KitsError where a key is unknown or has been removed."""
    known, given = all_keys(defaults), all_keys(config)
    for key in given:
        if key in known or inside(key, AUGMENTATION, *ELSEWHERE, *open_keys(defaults)):
            continue
        if inside(key, TRAINER):
            options = trainer_options()
            if key.split(".")[1] in options:
                continue
            known = [*known, *(f"{TRAINER}.{option}" for option in options)]
        raise KitsError(f"{key}: no such key{nearest(key, known)}")
    for key in known:
        if (
            key not in given
            and not inside(key, AUGMENTATION, TRAINER, *ELSEWHERE)
            and isinstance(value_at(config, parent(key)), dict)
        ):
            raise KitsError(f"{key}: has been removed, but is read; give it a value")


def check_values(config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise KitsError where a value is none that its key may have."""
    for key, value in leaves(config):
        if inside(key, AUGMENTATION, *ELSEWHERE):
            continue
        check_choice(key, value, value_at(defaults, key))
        usual = ANYTHING if inside(key, TRAINER) else derived(value_at(defaults, key))
        rule = RULES.get(key, usual)
        if not rule.accepts(value):
            raise KitsError(f"{key}={text(value)}: give {rule.meaning}")
    if AUGMENTATION in config:
        check_augmentation(config[AUGMENTATION] or {})


def check_choice(key: str, value: Any, chosen: Any) -> None:
    """Raise KitsError where the name in a group's file is changed by itself: its options would stay those of the other choice."""
    group, _, name = key.partition(".")
    if name in NAMES and value != chosen and choices_of(group):
        raise KitsError(f"{key}={text(value)}: is chosen as a whole; give {group}=... with one of {', '.join(choices_of(group))}")


def leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of all that is not a group of keys itself."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def inside(key: str, *groups: str) -> bool:
    """Whether a key is one of these or below one."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def open_keys(defaults: dict[str, Any]) -> list[str]:
    """Keys that are null in conf/ and so may become groups of keys."""
    return [key for key, value in leaves(defaults) if value is None]


def parent(key: str) -> str:
    """`a.b` of `a.b.c`."""
    return key.rpartition(".")[0]


def value_at(config: Any, key: str) -> Any:
    """The value of a dotted key, or None; of the empty key the whole."""
    for name in key.split(".") if key else ():
        config = config.get(name) if isinstance(config, dict) else None
    return config


def trainer_options() -> list[str]:
    """What Lightning's Trainer takes, read from its source: importing it takes seconds."""
    package = importlib.util.find_spec("pytorch_lightning")
    if package is None or package.origin is None:
        return []
    source = Path(package.origin).with_name("trainer") / "trainer.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return [argument.arg for argument in node.args.kwonlyargs]
    return []
