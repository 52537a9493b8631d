"""Schemas of parts of a user's own, which no checkpoint has to rebuild: Hydra's `_target_`."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Tag

from kits.config.schema.base import Meaning

TARGET = "_target_"
# Branches of a union: a mapping with `_target_`, or one of our own models.
OWN, NAMED = "own", "named"


def is_target(value: dict[str, Any]) -> bool:
    """Tell whether a `_target_` is a MODULE.NAME; whether there is such a part is seen when it is built."""
    return bool(re.fullmatch(r"\w+(\.\w+)+", str(value.get(TARGET))))


def branch(value: Any) -> str:
    """Tell the branch of a union that a value is for."""
    return OWN if isinstance(value, dict) and TARGET in value else NAMED


A_PART = "_target_: MODULE.NAME, and its arguments beside it"
Own = Annotated[dict[str, Any], Meaning(A_PART, is_target)]
OWN_OR_NAMED = Discriminator(branch)
Named = TypeVar("Named")
# OwnOr[Named]: a part of the user's own, or one of ours.
OwnOr = Annotated[Annotated[Own, Tag(OWN)] | Annotated[Named, Tag(NAMED)], OWN_OR_NAMED, Meaning(A_PART)]
