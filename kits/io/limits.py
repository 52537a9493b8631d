"""Refuse images of more voxels than a CT has, and of more than the memory holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kits.core.errors import KitsError

# KiTS19's largest scan (case_00151) has 278 million voxels.
MAX_VOXELS = 1 << 30
_MEMORY = Path("/proc/meminfo")
# What a container may take, and what of it is taken for good: pages of files are given back (cgroup v2, then v1).
_GROUPS = (("/sys/fs/cgroup", "memory.max", "anon"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "total_rss"))


def refuse_size(path: Path, size: Sequence[int]) -> None:
    """Raise KitsError for a size (x, y, z) that no CT has: a small file may promise any, or none."""
    if not 0 < math.prod(size) <= MAX_VOXELS:
        voxels = " x ".join(map(str, size))
        raise KitsError(f"{path}: its header promises {voxels} voxels, which no CT has; copy it again, or crop the scan")


def refuse_memory(path: Path, count: int) -> None:
    """Raise KitsError where there is no room for so many bytes."""
    free = free_bytes()
    if free is not None and count > free:
        gb = f"{count / 1e9:.1f} GB of memory for its voxels, and {free / 1e9:.1f} GB are free"
        raise KitsError(f"{path}: needs {gb}; use a larger machine or crop the scan")


def free_bytes() -> int | None:
    """Return bytes of memory that this process can still have; None where the system does not tell."""
    found = []
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in _MEMORY.read_text(encoding="utf-8").splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    for folder, limit, taken in _GROUPS:
        with suppress(OSError, ValueError, KeyError):  # "max" where there is no limit
            most = int((Path(folder) / limit).read_text(encoding="utf-8"))
            lines = dict(line.split() for line in (Path(folder) / "memory.stat").read_text(encoding="utf-8").splitlines())
            found.append(most - int(lines[taken]))
    return min(found) if found else None
