"""Volumes, label maps and texts to files: complete under their name, or not there at all."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from kits.core.errors import KitsError, last_line
from kits.io.encoding import write_nifti
from kits.volume import Grid

# What this machine is writing, by its name: a dot, the name of what it becomes, the machine, a random number, the ending.
_HOST = sha256(platform.node().encode()).hexdigest()[:4]
_LEFTOVER = re.compile(r"\..*\.kits-([0-9a-f]{4})[0-9a-f]{8}(\..*)?", re.DOTALL)
# Nothing is written without a byte for so long.
_ABANDONED_S = 3600


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
    """Write an array (z, y, x) in LPS order as .nii.gz in the geometry `grid`, whole or not at all.

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
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name in it may be no UTF-8


def write_json(path: Path, content: Any) -> None:
    """Write a plain container as `write_text` does."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def make_folder(folder: Path, key: str) -> None:
    """Make a folder that the configuration names as `key`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitsError(f"{key}={folder}: cannot be made ({error.strerror}); give a folder that you may write") from error


@contextmanager
def whole_file(path: Path, suffix: str) -> Iterator[Path]:
    """Yield a name to write to, which becomes `path` by one rename if the block ends well."""
    with _hidden(path, suffix, folder=False) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder, which becomes or replaces `path` if the block ends well."""
    with _hidden(path, "", folder=True) as temporary:
        yield temporary
        if path.is_dir():  # out of the way first: removed where it is, a part of it could stay and pass for the whole
            with _hidden(path, "", folder=True) as old:
                os.replace(path, old)
                os.replace(temporary, path)
        else:
            os.replace(temporary, path)


@contextmanager
def _hidden(path: Path, suffix: str, *, folder: bool) -> Iterator[Path]:
    """Yield a file or folder beside `path` that is locked during the block and gone after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary, lock = _locked(path, suffix, folder=folder)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
    except (RuntimeError, OSError) as error:
        raise _unwritable(path, error) from error
    finally:
        _remove(temporary)
        os.close(lock)


def _locked(path: Path, suffix: str, *, folder: bool) -> tuple[Path, int]:
    while True:
        # In the same folder, so that the rename is atomic; hidden, so that no pattern for cases finds it.
        # Drawn at random: on a shared disk processes of several machines may have one number.
        name = f".{path.name.removesuffix(suffix)[:60]}.kits-{_HOST}{secrets.token_hex(4)}{suffix}"
        temporary = path.with_name(name)
        if folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
        # Before it is locked another process may take it for a leftover and remove it: then the next name is drawn.
        with suppress(FileNotFoundError):
            lock = os.open(temporary, os.O_RDONLY if folder else os.O_WRONLY)
            free = True
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:  # some network file systems have no locks
                pass
            if free and temporary.exists() and os.path.samestat(os.fstat(lock), temporary.stat()):
                return temporary, lock
            os.close(lock)


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove, once in a process, what killed processes left half written in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _LEFTOVER.fullmatch(entry.name)
            # The lock of another machine may not be seen here.
            if found is None or (found[1] != _HOST and time.time() - entry.stat(follow_symlinks=False).st_mtime < _ABANDONED_S):
                continue
            with suppress(OSError):  # it is being written, or there are no locks to tell
                lock = os.open(entry, (os.O_RDONLY if entry.is_dir() else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(Path(entry))
                finally:
                    os.close(lock)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> KitsError:
    return KitsError(f"{path}: cannot be written ({last_line(error)}); check the folder and the free space")
