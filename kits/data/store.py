"""The folder that a download fills: files, parts, and a note of which were read to their end."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from kits.core.errors import KitsError
from kits.core.plain_files import parse, read_object
from kits.data.sources import RemoteFile
from kits.io import check_file, write_json

# Below the output folder, so that a finished file moves by one rename; hidden, so that no pattern for cases finds it.
HIDDEN = ".download"


@dataclass(frozen=True)
class Promise:
    """A server's word on a file before it is sent; None where it says nothing."""

    size: int | None = None
    sha256: str | None = None


class DamagedError(KitsError):
    """An arrived file that is not what was promised."""


class Folder:
    """The output folder; safe to use from several threads, each with files of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.note, self.lock = path, path / HIDDEN / "checked.json", Lock()
        # Name: size, time of change in ns. No note: files are read again.
        self.checked: dict[str, list[int]] = read_object(self.note, {str: [int]}) or {}

    def sound(self, name: str) -> bool:
        """Tell whether the file is in place and opens to its end; read only once while it does not change."""
        path = self.path / name
        if not path.is_file():
            return False
        if self.checked.get(name) != _stamp(path):
            try:
                check_content(path)
            except KitsError:
                return False
            self._mark(name)
        return True

    def _mark(self, name: str) -> None:
        """Note that the file in place was read to its end."""
        with self.lock:
            self.checked[name] = _stamp(self.path / name)
            write_json(self.note, self.checked)

    def part(self, source: RemoteFile, promise: Promise) -> Path:
        """Return where this version of a file arrives; parts of other versions are removed."""
        # The ending stays: readers go by it.
        stem, dot, ending = source.name.replace("/", ".").partition(".nii.gz" if source.name.endswith(".nii.gz") else ".json")
        key = hashlib.sha256(f"{promise.sha256} {promise.size}".encode()).hexdigest()[:12]
        part = self.path / HIDDEN / f"{stem}.{key}.part{dot}{ending}"
        for other in part.parent.glob(f"{stem}.*.part{dot}"):
            if other != part:
                other.unlink()
        return part

    def place(self, part: Path, name: str) -> None:
        """Give a complete, sound file its name."""
        final = self.path / name
        try:
            final.parent.mkdir(exist_ok=True)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())  # the name must not reach the disk before the bytes
            os.replace(part, final)
        except OSError as error:
            raise KitsError(f"cannot be put in place ({error.strerror}); check the folder {self.path}") from error
        self._mark(name)


def check_arrived(source: RemoteFile, promise: Promise, part: Path) -> None:
    """Raise DamagedError where a file is not what the server promised, or does not open to its end."""
    if promise.sha256:
        with part.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != promise.sha256:
                raise DamagedError("arrived damaged (its SHA-256 is not the promised one); run the command again")
    try:
        check_content(part)
    except KitsError as error:
        reason = str(error).removeprefix(f"{part}: ").partition(";")[0]
        what = f"the file of {source.server} is broken ({reason})"
        raise DamagedError(f"{what}; leave the case out, or take it from another server") from error


def check_content(path: Path) -> None:
    """Raise KitsError for an image that does not unpack to its header's size, or records without a list."""
    if path.suffix != ".json":
        check_file(path)
        return
    try:
        if not isinstance(parse(path), list):
            raise ValueError("no list of records")
    except ValueError as error:
        raise KitsError(f"{path}: not the records of cases ({error}); copy it again") from error


def size_of(path: Path) -> int:
    """Return bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
