"""Schemas of parts of a user's own, which no checkpoint has to rebuild: Hydra's `_target_`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator

from kits.config.schema.base import Meaning, refuse

TARGET = "_target_"
# Branches of a union: a mapping with `_target_`, or one of our own models.
OWN, NAMED = "own", "named"


def names_a_part(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse a `_target_` that is no MODULE.NAME; whether there is such a part is seen when it is built."""
    if not re.fullmatch(r"\w+(\.\w+)+", str(value.get(TARGET))):
        raise ValueError("no target")
    return value


def branch(value: Any) -> str:
    """Tell the branch of a union that a value is for."""
    return OWN if isinstance(value, dict) and TARGET in value else NAMED


Own = Annotated[dict[str, Any], AfterValidator(names_a_part)]
OWN_OR_NAMED = Discriminator(branch)
# Of the union too, where it is told what a value may be.
A_PART = Meaning("_target_: MODULE.NAME, and its arguments beside it")


def check_others(group: str, others: Mapping[str, Any] | None) -> None:
    """Refuse keys beside those of a group that are no parts of the user's own.

    Raises:
        KitsError: one is not.
    """
    for name, value in (others or {}).items():
        if branch(value) != OWN or not re.fullmatch(r"\w+(\.\w+)+", str(value[TARGET])):
            raise refuse(f"{group}.{name}", value, "no such key; a part of your own has _target_: MODULE.NAME")
