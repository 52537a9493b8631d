"""List the files below a folder, and name what is no file or cannot be looked into."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kits.core.errors import printable


@dataclass(frozen=True)
class Skipped:
    """A file or series that was found and not taken, and the reason."""

    path: Path
    why: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.why}")


def summary(skipped: Iterable[Skipped]) -> list[str]:
    """List what was skipped, a line each; files of a folder with one reason share a line."""
    alike: dict[tuple[Path, str], list[Skipped]] = defaultdict(list)
    for item in skipped:
        alike[item.path.parent, item.why].append(item)
    lines = []
    for (folder, why), items in alike.items():
        if len(paths := {item.path for item in items}) > 1:
            lines.append(str(Skipped(folder, f"{len(paths)} files ({items[0].path.name}, ...): {why}")))
        else:
            lines.append(f"{items[0]}{f' ({len(items)} times)' if len(items) > 1 else ''}")
    return lines


def files_below(path: Path) -> tuple[list[Path], list[Skipped]]:
    """List the regular files at or below a path, and what cannot be looked into."""
    if path.is_file():
        return [path], []
    files, skipped, seen = [], [], {os.path.realpath(path)}

    def leave_out(error: OSError) -> None:
        skipped.append(Skipped(Path(error.filename), f"cannot be listed ({error.strerror}); check who may read it"))

    for parent, folders, names in os.walk(path, onerror=leave_out, followlinks=True):
        if not folders and not names:
            skipped.append(Skipped(Path(parent), "an empty folder; copy it again"))
        for name in sorted(folders):
            place = os.path.realpath(os.path.join(parent, name))
            if name.startswith("."):
                skipped.append(Skipped(Path(parent, name), "a hidden folder"))
            elif place in seen:
                skipped.append(Skipped(Path(parent, name), "a link to a folder that is looked into already"))
            else:
                seen.add(place)
                continue
            folders.remove(name)
        folders.sort()
        for name in sorted(names):
            file = Path(parent, name)
            if name.startswith("."):
                skipped.append(Skipped(file, "a hidden file"))
            elif file.is_file():
                files.append(file)
            else:
                skipped.append(Skipped(file, "no regular file (a pipe, a device or a broken link)"))
    return files, skipped
