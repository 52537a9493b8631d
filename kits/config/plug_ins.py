"""Networks and parts of them that installed packages bring, by Python's entry points.

A checkpoint may name them: only what somebody has installed under that name is imported, never a path that stands in a file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

from kits.config.conf_files import one_line
from kits.config.schema.base import Meaning, Text
from kits.core.errors import KitsError

# By group of entry points: the key that names one.
MODELS, ENCODERS, OPERATORS, FUSIONS = "kits.models", "kits.encoders", "kits.operators", "kits.fusions"
KEYS = {MODELS: "model.network", ENCODERS: "backbone", OPERATORS: "model.operator", FUSIONS: "model.fusion"}


@cache
def plug_ins(group: str) -> dict[str, EntryPoint]:
    """Find the installed entry points of a group by name; nothing is imported.

    Raises:
        KitsError: two have the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise KitsError(f"{group}: {other.value} and {point.value} are both named {point.name}; uninstall one of them")
    return found


def check_names(group: str, ours: Collection[str]) -> None:
    """Refuse a plug-in that has the name of a part of ours."""
    if taken := sorted({*ours} & {*plug_ins(group)}):
        raise KitsError(f"{group}: a plug-in is named {taken[0]}, as one of ours; uninstall it, or give it another name")


@contextmanager
def plug_in(group: str, name: str) -> Iterator[Any]:
    """Import a plug-in to build and try it on; whatever its code raises is told in one line.

    Raises:
        KitsError: it cannot be imported, or the body raises anything.
    """
    point, part = plug_ins(group)[name], None
    try:
        part = point.load()
        yield part
    except Exception as error:  # its code may raise anything
        what = f"{type(error).__name__}: {one_line(error)}"
        if part is None:
            raise KitsError(f"{group}: {name} ({point.value}) cannot be imported ({what}); mend or uninstall it") from error
        raise KitsError(f"{KEYS[group]}={name}: {what}; mend the plug-in") from error


def installed(group: str) -> Meaning:
    """Say that a text is the name of a plug-in."""
    return Meaning(f"the name of an installed plug-in (entry point {group})", lambda name: name in plug_ins(group))


PlugInOperator = Annotated[Text, installed(OPERATORS)]
PlugInFusion = Annotated[Text, installed(FUSIONS)]
PlugInNetwork = Annotated[Text, installed(MODELS)]
