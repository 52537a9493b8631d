"""The labels and channels that a dataset.json describes, nnU-Net's or the Decathlon's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kits.core.errors import KitsError


def ids_by_name(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Read the ids of each label; the Decathlon and nnU-Net's first version give names by id."""
    labels: dict[str, Any] = about["labels"]
    if any(map(str.isdecimal, labels)):
        if wrong := next((number for number, name in labels.items() if not (number.isdecimal() and isinstance(name, str))), None):
            raise KitsError(f"{path}: its label {wrong!r} is {labels[wrong]!r}; give a number and its name, as for the others")
        return {name: int(number) for number, name in labels.items()}
    for name, ids in labels.items():
        if not all(type(one) is int for one in (ids if isinstance(ids, list) else [ids])):
            raise KitsError(f"{path}: its label {name!r} is {ids!r}; give a whole number, or a list of them for a region")
    return labels


def channel_of_ct(path: Path, about: dict[str, Any]) -> int:
    """Tell which channel is the CT: the first, or of several the one that is called so."""
    names: Any = about.get("channel_names") or about.get("modality") or {}
    if not isinstance(names, dict) or len(names) < 2:
        return 0
    cts = [number for number, name in names.items() if number.isdecimal() and str(name).upper() == "CT"]
    if len(cts) != 1:
        raise KitsError(f"{path}: which of its channels ({', '.join(map(str, names.values()))}) is the CT? Call one of them CT")
    return int(cts[0])
