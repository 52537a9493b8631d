"""A data set in any known layout as a KiTS tree: NIfTI files by links, other formats written anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from kits.config.schema.base import text
from kits.core.errors import KitsError
from kits.core.labels import classes_by_id
from kits.data.index import IMAGE_NAME, LABEL_NAME, Case, claim_cases
from kits.data.layouts import find_data_set, label_ids
from kits.data.validate import check_files, check_headers
from kits.io import read_labels, read_volume, whole_folder, write_labels, write_volume
from kits.io.tree import summary

if TYPE_CHECKING:
    from kits.config.schema.dataset import Data


def convert(data: Data, root: Path, output: Path) -> str:
    """Make `output` a KiTS tree of the data set in `root`: a folder a case, image and label map.

    Compressed NIfTI files are linked, and those of other formats written anew. Label ids stay as they are.

    Returns:
        What was made and left out, and the `data.labels` to prepare it with where its ids are not those of KiTS.

    Raises:
        KitsError: nothing is found (see `find_data_set`), or what `write_cases` refuses: two files of a case are not of one grid.
    """
    found = find_data_set(data, root)
    labels = label_ids(data, found)
    classes = classes_by_id(labels) if labels else None

    def write(name: str, folder: Path) -> list[str]:
        write_case(found.cases[name], folder, classes)
        return []

    told = write_cases(data, root, output, found.cases, write, summary(found.left_out))
    if classes and any(number != label for number, label in classes.items()):
        told += (
            f"\nits label ids are its own: give kits.pipeline, or kits.prepare and kits.evaluate, 'data.labels={text(labels)}'"
        )
    return told


def write_cases(
    data: Data, root: Path, output: Path, cases: Collection[str], write: Callable[[str, Path], list[str]], left_out: list[str]
) -> str:
    """Write cases into folders that appear whole; one that cannot be written stops no other.

    Args:
        write: writes the files of a case into a folder, and returns what it has left out of them.
        left_out: what is no case, for the answer.

    Returns:
        What was made and left out.

    Raises:
        KitsError: `output` lies in `root` or holds cases that are none of these, which would be taken for such; or cases could
            not be written (the others are) and `data.skip_invalid` is false.
    """
    if output.resolve().is_relative_to(root.resolve()):
        raise KitsError(f"output={output}: lies in root={root}; give a folder of its own")
    if others := sorted({path.parent.name for path in output.glob(f"*/{IMAGE_NAME}")} - set(cases)):
        what = "which is no case of this data set; remove it, or give another folder"
        raise KitsError(f"output={output}: holds {others[0]}, {what}")
    claim_cases(output, cases, "converted")
    failed = []
    for name in tqdm(cases, desc="convert", unit="case"):
        try:
            with whole_folder(output / name) as folder:
                left_out += [f"{name}: {note}" for note in write(name, folder)]
        except KitsError as error:
            failed.append(f"{name}: {error}")
    told = "\n".join([f"{len(cases) - len(failed)} cases in {output}", *(f"left out: {line}" for line in [*left_out, *failed])])
    if failed and not data.skip_invalid:
        print(told)
        without = "data.skip_invalid=true leaves such out"
        raise KitsError(f"{len(failed)} of {len(cases)} cases could not be converted ({without}), the first: {failed[0]}")
    return told


def write_case(case: Case, folder: Path, classes: Mapping[int, int] | None) -> None:
    """Link or write the two files of a case.

    Raises:
        KitsError: they are not of one grid, or cannot be read.
    """
    if findings := check_files(case) or check_headers(case)[0]:
        raise KitsError(f"{findings[0].finding}; {findings[0].remedy}")
    for path, name in ((case.image, IMAGE_NAME), (case.label, LABEL_NAME)):
        if path.name.endswith(".nii.gz"):
            link(path.resolve(), folder / name)
        elif name == IMAGE_NAME:
            volume = read_volume(path)
            write_volume(folder / name, volume.array, volume.grid)
        else:  # with its own ids, as a linked one
            volume = read_labels(path, allowed=range(256) if classes is None else classes)
            write_labels(folder / name, volume.array, volume.grid)


def link(path: Path, place: Path) -> None:
    """Make `place` a link to a file; where the file system has none, a second name for it."""
    for way in (os.symlink, os.link):
        try:
            return way(path, place)
        except OSError as error:
            reason = error.strerror
    raise KitsError(f"output: {path} cannot be linked to ({reason}); choose a folder on a file system that has links")
