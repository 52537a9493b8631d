"""Overrides as they are typed: which are for a workflow's steps, and how a value is spelled."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kits.config.quoting import quoted
from kits.config.schema.base import text


def passed_on(overrides: Iterable[str], own: Collection[str]) -> list[str]:
    """Leave out the overrides of a command's own keys; the others are for its trainings."""
    return [override for override in overrides if re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0] not in own]


def spelled(value: Any) -> str:
    """Spell a plain value as the right side of an override."""
    return text(value, quoted)


def assigned(values: Mapping[str, Any]) -> list[str]:
    """Make the overrides that give these keys these values."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def later_wins(overrides: Iterable[str]) -> list[str]:
    """Leave out overrides whose key a later one gives again."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
