"""Paths on a command line in the quotes of Hydra's override grammar.

There spaces, commas and brackets mean more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence

_PLAIN = re.compile(r"(\.{0,2}/|[A-Za-z_])[\w./+@-]*", re.ASCII)
_INTERPOLATION = re.compile(r"\$\{[^}]+\}")
_ENTRY = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*[^,\s])\s*(?:,|$)""")


def quoted(text: str) -> str:
    """Put a text that is no plain word in Hydra's quotes: no grammar, no interpolation."""
    if _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    # OmegaConf reads what Hydra has read: a backslash takes the meaning of ${, and stands before it doubled.
    return _in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def quote_paths(overrides: Sequence[str], keys: Collection[str]) -> list[str]:
    """Put the values of `keys`, which take paths, in quotes, so that any path is itself.

    A value in brackets is a list of paths. Left to Hydra are null, nothing, what stands in quotes already, and interpolations
    `${...}`, unless a file has that very name. `~` is the home folder. Quoting twice changes nothing.
    """
    result = []
    for override in overrides:
        key, equals, value = override.partition("=")
        whole = os.path.lexists(value)
        if not equals or key.lstrip("+") not in keys:
            result.append(override)
        elif value[:1] + value[-1:] == "[]" and not whole:
            result.append(f"{key}=[{','.join(map(_path, _ENTRY.findall(value[1:-1])))}]")
        else:
            result.append(f"{key}={_path(value)}")
    return result


def _path(text: str) -> str:
    if os.path.lexists(text):
        return quoted(text)
    entry = _ENTRY.fullmatch(text)
    in_quotes = text[:1] in ("'", '"') and text[-1] == text[0] and entry is not None and entry[1] == text
    if in_quotes or text.lower() in ("", "null"):
        return text
    return _in_quotes(text) if _INTERPOLATION.search(text) else quoted(os.path.expanduser(text))


def _in_quotes(text: str) -> str:
    """Double the backslashes before a quote and at the end; elsewhere they stand for themselves."""
    before_quotes = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", before_quotes) + "'"
