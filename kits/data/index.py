"""Cases: their ids and files, and the owners of label maps by the names that data sets give them."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.core.errors import KitsError
from kits.core.plain_files import read_json
from kits.io.writing import make_folder, write_json

# As KiTS19 publishes them. Every KiTS set has the same images; what a set calls its label maps is `data.label_name`.
IMAGE_NAME, LABEL_NAME = "imaging.nii.gz", "segmentation.nii.gz"
RECORDS_NAME = "kits.json"
ID, LONGEST_ID = re.compile(r"[^\W_][\w.+-]*"), 100
ENDINGS = re.compile(r"(\.nii)?\.gz$|(\.seg)?\.nrrd$|\.(nii|hdr|nhdr|mha|mhd)$", re.IGNORECASE)
# case_00061 (all sets, and nnU-Net's of them), prediction_00061 (KiTS19's leaderboard), KiTS_00061 and kits23_00061 (nnU-Net's
# data sets), 00061; _0000 is the channel in the names of nnU-Net's images, of any case.
NUMBERED = re.compile(r"(?:(?:case|prediction|kits(?:19|21|23)?)[_-]?(\d{1,5})|(\d{5}))(?:_0000)?", re.IGNORECASE)
KNOWN = "case_00061.nii.gz, prediction_00061.nii.gz, KiTS_00061.nii.gz or case_00061/segmentation.nii.gz"


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


def case_number(name: str) -> int | None:
    """Return the number of a KiTS case by the name of a file or folder; None for any other name."""
    found = NUMBERED.fullmatch(name)
    return int(found[1] or found[2]) if found else None


def case_id(name: str) -> str:
    """Return a KiTS case as `case_00061`, whoever named it; any other name as it is."""
    number = case_number(name)
    return name if number is None else f"case_{number:05d}"


def label_maps(folder: Path, label_name: str = LABEL_NAME) -> dict[str, list[Path]]:
    """Map the name of each case to its label map in a folder.

    Args:
        label_name: what the data set calls it; KiTS19's name is known beside it.
    """
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            inside = [entry / name for name in (label_name, LABEL_NAME) if (entry / name).is_file()]
            if inside:
                found.setdefault(entry.name, []).append(inside[0])
        elif ENDINGS.search(entry.name) and entry.is_file():
            found.setdefault(ENDINGS.sub("", entry.name), []).append(entry)
    return found


def match(cases: Collection[str], maps: dict[str, list[Path]]) -> dict[str, Path]:
    """Find each case's label map, of the very name or of its number under another known name.

    Raises:
        KitsError: a case has two.
    """
    by_number: dict[int, list[Path]] = {}
    for name, paths in maps.items():
        if (number := case_number(name)) is not None:
            by_number.setdefault(number, []).extend(paths)
    numbers = {case: case_number(case) for case in cases}
    shared = Counter(number for number in numbers.values() if number is not None)
    found = {}
    for case, number in numbers.items():
        alike = number is not None and shared[number] == 1
        channel = f"{case}_0000"
        same = maps.get(case, []) + (maps.get(channel, []) if channel not in numbers else [])
        paths = by_number.get(number, []) if number is not None and alike else same
        if len(paths) > 1:
            listed = " and ".join(repr(path.name if path.parent == paths[0].parent else str(path)) for path in paths[:2])
            raise KitsError(f"{paths[0].parent}: {listed} are both of {case}; take one out")
        if paths:
            found[case] = paths[0]
    return found


def find_predictions(
    folder: Path, cases: Collection[str], label_name: str = LABEL_NAME, key: str = "prediction"
) -> dict[str, Path]:
    """Find the predictions in a folder by case.

    Raises:
        KitsError: no such folder, a case has two, or not one of the files is of any of these cases.
    """
    if not folder.is_dir():
        raise KitsError(f"{key}={folder}: no such folder; give the output of kits.predict")
    maps = label_maps(folder, label_name)
    found = match(cases, maps)
    if not found:
        some = ", ".join(repr(name) for name in list(maps)[:3])
        held = f"holds {len(maps)} label map(s) ({some}{', ...' if len(maps) > 3 else ''})" if maps else "holds no label map"
        asked = ", ".join(list(cases)[:3]) + (", ..." if len(cases) > 3 else "")
        raise KitsError(f"{key}={folder}: {held}, none of {asked}; known names are {KNOWN}")
    return found


def claim_cases(tree: Path, names: Collection[str], how: str) -> list[dict[str, Any]]:
    """Note in a tree's records that cases of these names are made by us, before the first of them is.

    Args:
        tree: `output` of a command; made where it is missing.
        how: the key of a record that says so, such as `painted`.

    Returns:
        The records of all other cases in the tree.

    Raises:
        KitsError: a case, or the records, would replace those of another data set.
    """
    make_folder(tree, "output")
    path, records = tree / RECORDS_NAME, []
    if path.exists():
        records = read_json(path, [{"case_id": str | int}], "a tree's list of records", "give another folder")
    ours = {record["case_id"] for record in records if how in record}
    foreign = [RECORDS_NAME] if len(ours) < len(records) else []
    if other := next((name for name in [*foreign, *sorted(names)] if name not in ours and (tree / name).exists()), None):
        raise KitsError(f"output={tree}: holds {other} already, which is not {how} by this command; give another folder")
    kept = [record for record in records if record["case_id"] not in names]
    write_json(path, [*kept, *({"case_id": name, how: {}} for name in names)])
    return kept
