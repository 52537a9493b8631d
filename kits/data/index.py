"""Which cases there are, and where their files lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.core.errors import KitsError

# As KiTS19 publishes them. Every KiTS set has the same images; what a set calls its label maps is `data.label_name`.
IMAGE_NAME, LABEL_NAME = "imaging.nii.gz", "segmentation.nii.gz"


@dataclass(frozen=True)
class Case:
    """One folder of a KiTS tree."""

    id: str
    image: Path
    label: Path


def find_cases(root: Path, exclude: Sequence[str], label_name: str, unlabeled_from: int | None = None) -> list[Case]:
    """Every `case_*` folder below `root`, by id, without the excluded ones and those of a test set.

    Args:
        label_name: file name of the label maps, `data.label_name`.
        unlabeled_from: the number from which on cases have no labels, `data.unlabeled_from`; None where all have some.

    Raises:
        KitsError: the folder does not exist or holds no case.
    """
    if not root.is_dir():
        raise KitsError(f"data.root={root}: no such folder; point it at the tree that holds case_00000, case_00001, ...")
    refuse_unknown(exclude)
    cases = [
        Case(folder.name, folder / IMAGE_NAME, folder / label_name)
        for folder in sorted(root.glob("case_*"))
        if folder.is_dir() and folder.name not in exclude and not is_test_case(folder.name, unlabeled_from)
    ]
    if not cases and any(root.glob("case_*")):
        raise KitsError(f"data.root={root}: every case in it is excluded or from data.unlabeled_from={unlabeled_from} on")
    if not cases:
        raise KitsError(f"data.root={root}: no case_XXXXX folder in it; the layout is case_XXXXX/{IMAGE_NAME} and {label_name}")
    return cases


def refuse_unknown(exclude: Sequence[str]) -> None:
    """Raise KitsError unless every excluded case is named by an id; one that is not in the tree does no harm."""
    if isinstance(exclude, str) or not isinstance(exclude, Sequence):
        raise KitsError(f"data.exclude={exclude}: is no list; give case ids, as in data.exclude=[case_00015]")
    for name in exclude:
        if not (isinstance(name, str) and re.fullmatch(r"case_\d{5}", name)):
            raise KitsError(f"data.exclude: {name} is no case id; give all five digits, as in data.exclude=[case_00015]")


def is_test_case(name: str, unlabeled_from: int | None) -> bool:
    """Whether the number of `case_XXXXX` is in the part of a data set that comes without labels."""
    number = name.removeprefix("case_")
    return unlabeled_from is not None and number.isdecimal() and int(number) >= unlabeled_from


def case_ids(cases: Any) -> list[str] | None:
    """`cases=` of a command line as ids: a list or one of `case_00003`, `3`; None for all."""
    if cases is None:
        return None
    listed = cases if isinstance(cases, list) else [cases]
    return [f"case_{int(case):05d}" if str(case).isdecimal() else str(case) for case in listed]


def find_images(path: Path, cases: Sequence[str] | None) -> dict[str, Path]:
    """The scans at `path` by name: one file, a DICOM folder, or the `imaging.nii.gz` of a folder of cases.

    Args:
        cases: take only these cases of a folder of cases.

    Raises:
        KitsError: nothing there, or a case that is asked for is not.
    """
    if not path.exists():
        raise KitsError(f"input={path}: no such file or folder; give a NIfTI file, a DICOM folder or a folder of cases")
    if path.is_file():
        return {path.name.removesuffix(".gz").removesuffix(".nii"): path}
    found = {image.parent.name: image for image in sorted(path.glob(f"case_*/{IMAGE_NAME}"))}
    if not found:
        if cases is not None:
            raise KitsError(f"input={path}: cases were named but it holds no case_XXXXX/{IMAGE_NAME}; give a folder of cases")
        if not any(entry.is_file() for entry in path.iterdir()):
            raise KitsError(f"input={path}: neither case_XXXXX/{IMAGE_NAME} nor DICOM files in it; give a folder that has some")
        return {path.resolve().name: path}
    missing = sorted(set(cases or ()) - set(found))
    if missing:
        raise KitsError(f"input={path}: no {IMAGE_NAME} of {', '.join(missing)}; take these cases out or add their files")
    return {name: image for name, image in found.items() if cases is None or name in cases}
