"""Is it the same sweep that is started again?"""

from __future__ import annotations

from pathlib import Path

from kits.core.errors import KitsError
from kits.core.plain_files import read_json
from kits.io import write_json
from kits.sweeps.trial import RECORD

SWEEP = "sweep.json"


def same_sweep(folder: Path, search: str, fixed: list[str], swept: list[str]) -> None:
    """Note in the folder what is swept, or hold it against what is noted there.

    A grid may grow by values and keys; the space of an adaptive search has to stay, for it learns from the earlier trials.

    Raises:
        KitsError: the folder holds trials of another sweep.
    """
    path = folder / SWEEP
    now: dict[str, str | list[str]] = {
        "search": search,
        "fixed": sorted(fixed),
        "swept": sorted(swept),
    }
    before = now
    if path.exists():
        before = read_json(path, {"search": str, "fixed": [str], "swept": [str]}, "a sweep's note", "give another sweep.dir=DIR")
    if not any(folder.glob(f"*/{RECORD}")):  # a start that was refused has left its note, and no trial
        before = now
    compared = ("search", "fixed") if search == "grid" else ("search", "fixed", "swept")
    for key in compared:
        if before[key] != now[key]:
            raise KitsError(
                f"sweep.dir={folder}: holds trials of another sweep ({key}: {difference(before[key], now[key])}); "
                "give another sweep.dir=DIR, or the same command again"
            )
    write_json(path, now)


def difference(before: str | list[str], now: str | list[str]) -> str:
    """What the one has and the other has not."""
    there, here = ([value] if isinstance(value, str) else value for value in (before, now))
    return f"there {only(there, here)}, now {only(here, there)}"


def only(these: list[str], others: list[str]) -> str:
    """Those that the others do not have, in one line."""
    return " ".join(each for each in these if each not in others) or "none of that"
