"""The index of cases, and where their files lie."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.core.errors import KitsError

# As KiTS19 publishes them. Every KiTS set has the same images; what a set calls its label maps is `data.label_name`.
IMAGE_NAME, LABEL_NAME = "imaging.nii.gz", "segmentation.nii.gz"
RECORDS_NAME = "kits.json"
ID, LONGEST_ID = re.compile(r"[^\W_][\w.+-]*"), 100


@dataclass(frozen=True)
class Case:
    """An image and its label map, in a KiTS tree in a folder that is called as the case."""

    id: str
    image: Path
    label: Path
    patient: str | None = None  # where a data set says whose it is; one patient's cases never train and validate
    others: tuple[Path, ...] = ()  # label maps of the same image: nobody knows which is meant, and it is named as damaged


def odd_id(name: str) -> str | None:
    """Tell what, if anything, makes a case's id unfit for names of files, tables and command lines."""
    if not ID.fullmatch(name) or ".." in name or name.endswith("."):
        return "and an id has letters, digits and _ . + - only, and begins with one of the first two"
    if len(name.encode()) > LONGEST_ID:
        return f"and an id has at most {LONGEST_ID} bytes"
    if name.isdecimal():  # `cases=3` means case_00003
        return "and an id has more than digits"
    return None


def check_excluded(exclude: Sequence[str], known: Collection[str]) -> None:
    """Refuse an id in `data.exclude` that is no case's; a KiTS case that is not in the tree does no harm."""
    for name in exclude:
        if name not in known and not re.fullmatch(r"case_\d{5}", name):
            near = difflib.get_close_matches(name, known, n=1)
            like = f"did you mean {near[0]}?" if near else "give ids as their folders are called, as in data.exclude=[case_00015]"
            raise KitsError(f"data.exclude: {name} is no case of this data set; {like}")


def case_ids(cases: Any) -> list[str] | None:
    """Return `cases=` of a command line as ids: a list or one of `case_00003`, `3`; None for all."""
    if cases is None:
        return None
    listed = cases if isinstance(cases, list) else [cases]
    return [f"case_{int(case):05d}" if str(case).isdecimal() else str(case) for case in listed]
