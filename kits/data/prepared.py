"""A prepared cache as trainings read it: its index, and how its cases are split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, cast

from kits.config.schema.base import text
from kits.config.schema.dataset import SplitOptions
from kits.core.errors import KitsError
from kits.core.plain_files import read_json
from kits.data.cache import FORMAT
from kits.data.cached_case import RECORD, CaseRecord, read_record
from kits.data.splits import read_split

INDEX = {
    "format": int,
    "settings": {str: Any},
    "data_hash": str,
    "cases": {str: {**RECORD, "id": str, "key": str, "folder": str}},
}


class Index(TypedDict):
    """The content of a cache's index.json: its cases by id, and a digest of what they were made from."""

    format: int
    settings: dict[str, Any]
    data_hash: str
    cases: dict[str, CaseRecord]


def read_subsets(cache: Path, cases: Iterable[str], asked: SplitOptions | None, fold: int | None) -> dict[str, list[str]]:
    """Read the ids of `train` and `validation` in a prepared cache.

    Args:
        cases: the ids of its index.
        asked: how the run wants them to be split, where it says so; the file must then agree.

    Raises:
        KitsError: the split is not of these cases or not made with these settings, or has no such fold.
    """
    split = read_split(cache / "splits.json")
    split.check_cases(cases, "run kits.prepare again")
    if asked is not None:
        split.check_settings(asked)
    return {subset: split.subset(subset, fold) for subset in ("train", "validation")}


def one_case(split: dict[str, list[str]], case: str) -> dict[str, list[str]]:
    """Return a split of one training case, to learn and to be validated on; `first` names none.

    Raises:
        KitsError: it is no training case of this split.
    """
    train = split["train"]
    if case != "first" and case not in train:
        raise KitsError(f"data.overfit={case}: no training case of this split; take one, e.g. {train[0]}, or first")
    chosen = [train[0] if case == "first" else case]
    return {"train": chosen, "validation": chosen}


def read_index(cache: Path, settings: dict[str, Any]) -> Index:
    """Read the index of a prepared cache.

    Raises:
        KitsError: there is none, its settings are not these, another version made it, or a case in it is not whole.
    """
    path = cache / "index.json"
    if not path.is_file():
        raise KitsError(f"data.cache={cache}: not prepared; run python -m kits.prepare with the same data.cache")
    index = cast("Index", read_json(path, INDEX, "the index of a cache", "run kits.prepare again"))
    if index["settings"] != settings:
        made = index["settings"]
        unlike = [key for key in settings if settings[key] != made.get(key)] or sorted(made)
        had, asks = (" ".join(f"data.{key}={text(one.get(key))}" for key in unlike) for one in (made, settings))
        raise KitsError(
            f"data.cache={cache}: was prepared with {had}, this run asks for {asks}; give the same, or run kits.prepare again"
        )
    if index["format"] != FORMAT:
        raise KitsError(f"data.cache={cache}: was prepared by another version; run kits.prepare again")
    for case, record in index["cases"].items():
        own = read_record(cache / record["folder"])
        if own is None:
            raise KitsError(f"data.cache={cache}: {case} is not whole; run kits.prepare again")
        if case != record["id"] or any(record.get(key) != own.get(key) for key in RECORD):
            raise KitsError(f"{path}: damaged or edited (what it says of {case}); run kits.prepare again")
    return index
