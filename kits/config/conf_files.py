"""Find the files of conf/, and say what everybody says about keys and values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kits.core.errors import KitsError


def conf_dir() -> Path:
    """Find the folder of YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "_conf"
    return inside if inside.is_dir() else package.parent / "conf"


def choices_of(group: str) -> list[str]:
    """List the names that a configuration group offers."""
    folder = conf_dir() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def groups() -> list[str]:
    """List the configuration groups: the folders of conf/, but for Hydra's own."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")


def plain(options: Any) -> Any:
    """Give typed options, or a part of them, as the dicts, lists and scalars that they were parsed from."""
    from pydantic import BaseModel

    if isinstance(options, BaseModel):
        return {key: plain(value) for key, value in options if key in options.model_fields_set}
    if isinstance(options, dict):
        return {key: plain(value) for key, value in options.items()}
    return [plain(value) for value in options] if isinstance(options, list | tuple) else options


def flat(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give nested groups dotted keys: `{model: {fusion: gate}}` as `{model.fusion: gate}`."""
    found: dict[str, Any] = {}
    for key, value in (config or {}).items():
        inner = flat(value) if isinstance(value, Mapping) else {}
        found |= {f"{key}.{name}": one for name, one in inner.items()} if inner else {key: value}
    return found


def nearest(name: str, known: list[str]) -> str:
    """Say `; did you mean X?` of the closest known name, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:  # a right leaf under the wrong parent is the commonest slip
        close = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    return f"; did you mean {close[0]}?" if close else ""


def one_line(error: object) -> str:
    """Fold the line breaks of an exception's text."""
    return " ".join(str(error).split())


def require(value: Any, key: str, remedy: str) -> Any:
    """Return `value`, or raise a KitsError that names the key where it is null or empty."""
    if value is None or value == "":
        raise KitsError(f"{key}: no value given; {remedy}")
    return value
