"""What a step leaves when it is done, and whether that still holds: a stamp of its settings, its inputs and its outputs.

Inputs and outputs count by content, so that a step that ran again and made the same as before costs the steps after it nothing.
Where they lie does not count: a folder may be moved, or named from its root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kits.core.plain_files import read_object
from kits.io import write_json

# Raised when the file changes its meaning; an older one counts as none.
FORMAT = 1
SKIP, BEGIN, GO_ON, AGAIN = "skip", "begin", "go on", "again"
MISSING = "missing"
# Keys that name a place, which the content of the inputs stands for.
PLACES: tuple[str, ...] = (
    "data.root",
    "data.cache",
    "data.boxes",
    "run_dir",
    "coarse",
    "fine",
    "input",
    "prediction",
    "image",
    "truth",
)
PLACES += ("output", "split.source", "data.split.renew", "split.renew")
# Keys that say how fast, on what, or with what told to whom, and leave the result what it is.
MEANS: tuple[str, ...] = ("workers", "data.workers", "data.loader_workers", "device", "trainer.accelerator", "shard", "shards")
MEANS += ("logger", "overwrite", "resume", "callbacks.checkpoint")


@dataclass(frozen=True)
class Stamp:
    """What a step was made from and what it made; `done` is false from its beginning to its end.

    Attributes:
        settings: every key that a result depends on, with its value.
        inputs, outputs: fingerprints.
    """

    done: bool
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What to do with a step, SKIP, BEGIN, GO_ON or AGAIN, and the line that says why."""

    todo: str
    why: str


def judge(stamp: Stamp | None, settings: Mapping[str, Any], inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Verdict:
    """Whether a step has to run.

    Args:
        stamp: of its last run, None where there is none.
        settings, inputs, outputs: as they are now.
    """
    if stamp is None:
        return Verdict(BEGIN, "runs")
    changed = [*differing(stamp.settings, settings), *differing(stamp.inputs, inputs)]
    if changed:
        return Verdict(AGAIN, f"runs again, because {some(changed)} changed")
    if not stamp.done:
        return Verdict(GO_ON, "goes on, because it was interrupted")
    lost = [name for name in differing(stamp.outputs, outputs) if name in outputs]
    if lost:
        fate = "is gone" if outputs[lost[0]] == MISSING else "is no longer what this step made"
        return Verdict(AGAIN, f"runs again, because {lost[0]} {fate}")
    return Verdict(SKIP, "up to date")


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys that one of two mappings lacks or gives another value."""
    absent = object()
    return [key for key in {**before, **now} if before.get(key, absent) != now.get(key, absent)]


def some(names: list[str]) -> str:
    """The first few of many names."""
    if len(names) > 3:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join(names)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every dotted key of a configuration that the result depends on, and its value."""
    return {key: value for key, value in leaves(config).items() if not is_one_of(key, (*PLACES, *MEANS))}


def is_one_of(key: str, names: tuple[str, ...]) -> bool:
    """Whether a dotted key, or a node above it, is among the names."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested configuration by dotted key; lists are values."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, Mapping) and value else {key: value}
    return found


def fingerprint(path: Path, without: Path) -> str:
    """What tells that a file or a folder has changed: a file's SHA-256; names, sizes and times of the files in a folder.

    A KiTS tree has tens of GB, too much to read for a step that would be skipped.

    Args:
        without: a folder that does not count where it lies in the other: that of the results.
    """
    from kits.data.cache import digest, file_digest

    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        return MISSING
    found = []
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        hidden = any(part.startswith(".") for part in inside.parts)  # locks, and what is not finished
        if hidden or (path in without.parents and file.is_relative_to(without)) or not file.is_file():
            continue
        status = file.stat()
        found.append([str(inside), status.st_size, status.st_mtime_ns])
    return digest(found)


def read_stamp(path: Path) -> Stamp | None:
    """The stamp in a file; None where there is none that can be read."""
    content = read_object(path) or {}
    if content.pop("kits_step", None) != FORMAT:
        return None
    try:
        return Stamp(**content)
    except TypeError:
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write a stamp, whole or not at all.

    Raises:
        KitsError: the folder cannot be written.
    """
    write_json(path, {"kits_step": FORMAT, **asdict(stamp)})
