"""Find the files of conf/, and say what everybody says about keys and values."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kits.core.errors import KitsError
from kits.core.labels import CLASSES, KITS19_CLASSES


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


def all_keys(node: Any, prefix: str = "") -> list[str]:
    """List every dotted key of a plain configuration."""
    if not isinstance(node, dict):
        return []
    keys = []
    for name, child in node.items():
        key = f"{prefix}{name}"
        keys += [key, *all_keys(child, f"{key}.")]
    return keys


def nearest(name: str, known: list[str]) -> str:
    """Say `; did you mean X?` of the closest known name, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:  # a right leaf under the wrong parent is the commonest slip
        close = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    return f"; did you mean {close[0]}?" if close else ""


def one_line(error: object) -> str:
    """Fold the line breaks of an exception's text."""
    return " ".join(str(error).split())


def check_whole(name: str, value: object, least: int) -> None:
    """Raise KitsError unless an option is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise KitsError(f"{name}={value}: give a whole number of {least} or more")


def require(value: Any, key: str, remedy: str) -> Any:
    """Return `value`, or raise a KitsError that names the key where it is null or empty."""
    if value is None or value == "":
        raise KitsError(f"{key}: no value given; {remedy}")
    return value


def check_classes(classes: Sequence[str], outputs: int) -> None:
    """Hold a data set's classes against the label ids, whose meaning is fixed, and against the network.

    Args:
        classes: `data.classes`.
        outputs: classes of the fine network, `model.classes`.

    Raises:
        KitsError: the classes are neither KiTS19's nor all of KiTS21 and KiTS23, or the network has another number of them.
    """
    if tuple(classes) not in (KITS19_CLASSES, CLASSES):
        allowed = " or ".join(f"[{', '.join(names)}]" for names in (KITS19_CLASSES, CLASSES))
        raise KitsError(f"data.classes=[{', '.join(classes)}]: label ids have a fixed meaning; take {allowed}")
    if outputs != len(classes):
        raise KitsError(
            f"model.classes={outputs}: the data set has {len(classes)} classes; leave the key out, it follows data.classes"
        )
