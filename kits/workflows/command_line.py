"""Overrides as they are typed: which step each is for, and how a value is spelled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kits.config.quoting import quoted

PLAIN = re.compile(r"[A-Za-z_./][\w./+@-]*")


def gathered(arguments: Sequence[str], own: Iterable[str], steps: Iterable[str], rest: str) -> list[str]:
    """Turn `fine.model.fusion=gate` into an entry of the list `overrides.fine`, and so on: keys that the command has, for Hydra.

    Args:
        arguments: of the command line; flags stay.
        own: the command's own keys.
        steps: those whose name, with a dot, may stand before an override.
        rest: the step that all other overrides are for.
    """
    own, lists = set(own), dict[str, list[str]]()
    kept = []
    for argument in arguments:
        sign, key = re.match(r"(~|\+{0,2})(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
        name = re.split(r"[.=]", key, maxsplit=1)[0]
        if argument.startswith("-") or name in own:
            kept.append(argument)
        elif name in steps and key.startswith(f"{name}."):
            lists.setdefault(name, []).append(sign + key.removeprefix(f"{name}."))
        else:
            lists.setdefault(rest, []).append(argument)
    return [*kept, *(f"overrides.{name}=[{','.join(map(quoted, given))}]" for name, given in lists.items())]


def spelled(value: Any) -> str:
    """Spell a plain value as the right side of an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{spelled(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelled, value)) + "]"
    if isinstance(value, str | Path):
        text = str(value)
        return text if PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf") else quoted(text)
    return str(value)


def assigned(values: Mapping[str, Any]) -> list[str]:
    """Make the overrides that give these keys these values."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def later_wins(overrides: Iterable[str]) -> list[str]:
    """Leave out overrides whose key a later one gives again."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
