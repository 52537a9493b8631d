"""Small files of plain values, JSON that may be damaged and CSV tables, without heavy imports."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from kits.core.errors import KitsError, printable

# Above it no int is a float any more; nothing that is measured comes near.
LARGEST = 1e300


def misfit(value: Any, form: Any, place: str = "it") -> str | None:
    """Find what is wrong, and where, with a value from a file that must have a form; else None.

    A form is a type (`int` takes no bool, `float` takes an int and nothing infinite), a union of types or Any; `[form]` is a list
    of any length, a tuple of forms one of that length, `{str: form}` a mapping whose keys are all such; a dict with names as keys
    is a mapping that has at least these.
    """
    if form is Any:
        return None
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{place} is no mapping"
        kind = next(iter(form), None)
        if isinstance(kind, type):
            strange = next((key for key in value if misfit(key, kind)), None)
            if strange is not None:
                return f"{place} has the key {strange!r:.40}"
            inner = [(entry, form[kind], f"{place}.{printable(str(key))[:60]}") for key, entry in value.items()]
        else:
            lacking = next((key for key in form if key not in value), None)
            if lacking is not None:
                return f"{place} has no {lacking}"
            inner = [(value[key], entry, f"{place}.{key}") for key, entry in form.items()]
    elif isinstance(form, list | tuple):
        if not isinstance(value, list | tuple) or (isinstance(form, tuple) and len(value) != len(form)):
            return f"{place} is no list" + (f" of {len(form)}" if isinstance(form, tuple) else "")
        forms = form if isinstance(form, tuple) else form * len(value)
        inner = [(entry, own, f"{place}[{at}]") for at, (entry, own) in enumerate(zip(value, forms, strict=True))]
    else:
        types = form.__args__ if isinstance(form, UnionType) else (form,)
        return None if any(is_a(value, kind) for kind in types) else f"{place} is {value!r:.40}"
    return next((wrong for entry in inner if (wrong := misfit(*entry))), None)


def is_a(value: Any, kind: type) -> bool:
    """Tell whether a value is of a type: true is no number, every finite number is a float."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def parse(path: Path) -> Any:
    """Read the JSON in a file.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:  # thousands of brackets
        raise ValueError("nested too deep") from error


def read_json(path: Path, form: Any, what: str, remedy: str) -> Any:
    """Read the JSON in a file that has this form.

    Args:
        what: the file should be.
        remedy: what to do where it is not.
    """
    try:
        content = parse(path)
        wrong = misfit(content, form)
    except OSError as error:
        wrong = error.strerror
    except ValueError as error:
        wrong = str(error)
    if wrong:
        raise KitsError(f"{path}: cannot be read as {what} ({wrong}); {remedy}")
    return content


def read_object(path: Path, form: Any = None) -> dict[str, Any] | None:
    """Read the JSON object in a file; None where there is none, or none of this form, that can be read."""
    try:
        content = parse(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and not misfit(content, form or {}) else None


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table as CSV text, lines ended by a newline alone."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def read_numbers(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV table of numbers, as they are written, without their empty cells.

    A last line without its end is still being written, and left out.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines(), strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"row {number} has more cells than columns")
        for cell in filter(None, row.values()):
            float(cell)
    return [{name: cell for name, cell in row.items() if cell} for row in rows]
