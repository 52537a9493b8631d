"""Parts of networks that installed packages bring, by Python's entry points.

A checkpoint may name them: only what somebody has installed under that name is imported, never a path that stands in a file.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

from pydantic import AfterValidator

from kits.config.conf_files import one_line
from kits.config.schema.base import Meaning, Text
from kits.core.errors import KitsError

OPERATORS, FUSIONS = "kits.operators", "kits.fusions"


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


def load(group: str, name: str) -> Any:
    """Import a plug-in.

    Raises:
        KitsError: it cannot be imported.
    """
    point = plug_ins(group)[name]
    try:
        return point.load()
    except Exception as error:  # its code may raise anything
        what = f"{type(error).__name__}: {one_line(error)}"
        raise KitsError(f"{group}: {name} ({point.value}) cannot be imported ({what}); mend or uninstall it") from error


def an_operator(name: str) -> str:
    """Refuse an operator that no plug-in has."""
    return known(OPERATORS, name)


def a_fusion(name: str) -> str:
    """Refuse a fusion that no plug-in has."""
    return known(FUSIONS, name)


def known(group: str, name: str) -> str:
    """Refuse a name that no plug-in of a group has."""
    if name not in plug_ins(group):
        raise ValueError("no plug-in")
    return name


PlugInOperator = Annotated[Text, AfterValidator(an_operator), Meaning("the name of a plug-in (entry point kits.operators)")]
PlugInFusion = Annotated[Text, AfterValidator(a_fusion), Meaning("the name of a plug-in (entry point kits.fusions)")]
