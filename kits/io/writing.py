"""Volumes, label maps and texts to files: complete under their name, or not there at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from kits.errors import KitsError
from kits.io.encoding import write_nifti
from kits.io.reason import last_line
from kits.volume import Grid


def write_labels(path: str | Path, array: np.ndarray, grid: Grid) -> None:
    """Write a label map (z, y, x) in LPS order as .nii.gz in the geometry `grid`; uint8 in the file.

    Raises:
        KitsError: see `write_volume`.
        ValueError: labels outside 0 to 255, or of another shape than the grid.
    """
    if array.dtype != np.uint8:
        labels = array.astype(np.uint8)
        if not np.array_equal(labels, array):
            raise ValueError("labels must be whole numbers from 0 to 255")
        array = labels
    write_volume(path, array, grid)


def write_volume(path: str | Path, array: np.ndarray, grid: Grid, unit: float = 1.0) -> None:
    """Write an array (z, y, x) in LPS order as .nii.gz in the geometry `grid`: complete under its name, or not there at all.

    Args:
        unit: what a stored number is multiplied by to give its value; readers of NIfTI do that.

    Raises:
        KitsError: the name does not end in .nii.gz, or the folder cannot be written.
        ValueError: the array has another shape than the grid.
    """
    path = Path(path)
    if not path.name.endswith(".nii.gz"):
        raise KitsError(f"{path}: written files are compressed NIfTI; give a name that ends in .nii.gz")
    with whole_file(path, ".nii.gz") as temporary:
        write_nifti(temporary, array, grid, unit)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees all of it or what was there before; makes the folder.

    Raises:
        KitsError: the folder cannot be written.
    """
    with whole_file(path, path.suffix) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a plain container as `write_text` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def make_folder(folder: Path, key: str) -> None:
    """Make a folder that the configuration names as `key`.

    Raises:
        KitsError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitsError(f"{key}={folder}: cannot be made ({error.strerror}); give a folder that you may write") from error


@contextmanager
def whole_file(path: Path, suffix: str) -> Iterator[Path]:
    """A name to write to that becomes `path` by one rename when the block ends well, and is gone when it does not."""
    # In the same folder, so that the rename is atomic; hidden, so that no pattern for cases finds it.
    # Drawn at random: on a shared disk processes of several machines may have one number.
    temporary = path.with_name(f".{path.name.removesuffix(suffix)}.{secrets.token_hex(4)}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        raise KitsError(f"{path}: cannot be written ({last_line(error)}); check the folder and the free space") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
