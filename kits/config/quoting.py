"""Texts and paths on a command line as Hydra's override grammar reads them, where spaces, commas and brackets mean more."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

# Keys whose value is the path of a file or folder, whichever command has them.
PATHS = frozenset(
    (
        *("input", "output", "coarse", "fine", "image", "images", "prediction", "predictions", "truth", "labels", "zip"),
        *("data.root", "data.cache", "data.boxes", "split.source", "run_dir", "resume", "specification"),
        *("root", "scan", "scratch"),
    )
)
# Of these the ones that also take a list, [a.ckpt,b.ckpt].
LISTS = frozenset({"coarse", "fine"})
_INTERPOLATION = re.compile(r"\$\{[^}]+\}")
_ENTRY = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*[^,\s])\s*(?:,|$)""")


def quoted(text: str) -> str:
    """A text in Hydra's quotes, with which it stands for itself: no grammar, no interpolation."""
    # OmegaConf reads what Hydra has read: a backslash takes the meaning of ${, and stands before it doubled.
    return _in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def with_paths_quoted(overrides: Sequence[str]) -> list[str]:
    """Command line overrides, the values of keys that take a path in quotes: whatever characters it has, it is that path.

    Left to Hydra are null, nothing, what stands in quotes already, and interpolations `${...}`, unless a file has that very
    name. `~` is the home folder. Quoting twice changes nothing.
    """
    result = []
    for override in overrides:
        key, equals, value = override.partition("=")
        name, whole = key.lstrip("+"), os.path.lexists(value)
        if not equals or name not in PATHS:
            result.append(override)
        elif name in LISTS and value[:1] + value[-1:] == "[]" and not whole:
            result.append(f"{key}=[{_paths(value[1:-1])}]")
        else:
            result.append(f"{key}={_path(value)}")
    return result


def _paths(text: str) -> str:
    """Each of the entries that commas separate."""
    return ",".join(map(_path, _ENTRY.findall(text)))


def _path(text: str) -> str:
    if os.path.lexists(text):
        return quoted(text)
    if text.lower() in ("", "null") or _is_quoted(text):
        return text
    return _in_quotes(text) if _INTERPOLATION.search(text) else quoted(os.path.expanduser(text))


def _in_quotes(text: str) -> str:
    """Backslashes are doubled before a quote and at the end, and stand for themselves elsewhere."""
    before_quotes = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", before_quotes) + "'"


def _is_quoted(text: str) -> bool:
    """Whether the whole text is one quoted value."""
    entry = _ENTRY.fullmatch(text)
    return text[0] in "'\"" and entry is not None and entry[1] == text and text[-1] == text[0]
