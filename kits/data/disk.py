"""The cache as a folder of a disk: one user at a time, no leftovers, and room for what comes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.data.arrays import POINTS
from kits.data.cache import FORMAT, cache_settings, digest
from kits.data.index import Case
from kits.data.records import read_record
from kits.io import read_geometry

# Headers of five .npy files and a record.
OVERHEAD = 16_384


@contextmanager
def held_cache(cache: Path) -> Iterator[None]:
    """Hold the cache for one prepare at a time, and remove cases that a killed run left half-written.

    Raises:
        KitsError: it cannot be made, or another prepare works in it.
    """
    with sole_user(cache, lock=cache / ".lock", key="data.cache", work="kits.prepare"):
        (cache / "cases").mkdir(exist_ok=True)
        for partial in (cache / "cases").glob(".*"):
            shutil.rmtree(partial, ignore_errors=True)
        yield


def case_bytes(case: Case, coarse_size: int) -> int:
    """Estimate at most how many bytes a case takes in the cache, from its image's header alone."""
    try:
        grid = read_geometry(case.image)
    except Exception:  # validation names it
        return 0
    return math.prod(grid.size) * 3 + grid.shape_zyx[0] * coarse_size**2 * 3 + POINTS * 12 + OVERHEAD


def is_cached(case: Case, data: Data, cache: Path) -> bool:
    """Tell whether the cache has this case with these settings; a changed file shows when it is read."""
    made_with = digest([FORMAT, cache_settings(data)])
    records = (read_record(folder) for folder in (cache / "cases").glob(f"{case.id}-*"))
    return any(record is not None and record.get("made_with") == made_with for record in records)


def announce_size(cases: Sequence[Case], data: Data, cache: Path) -> dict[str, int]:
    """Print how much will be written at most.

    Returns:
        The bytes of each case by id.

    Raises:
        KitsError: more than the disk has room for.
    """
    sizes = {case.id: case_bytes(case, data.coarse_size) for case in cases}
    missing = [case.id for case in cases if not is_cached(case, data, cache)]
    wanted, free = sum(sizes[case] for case in missing), shutil.disk_usage(cache).free
    print(
        f"{len(cases)} cases take up to {sum(sizes.values()) / 1e9:.1f} GB in {cache}; {len(missing)} are to be written:"
        f" up to {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
        flush=True,
    )
    if wanted > free:
        raise KitsError(
            f"data.cache={cache}: up to {wanted / 1e9:.1f} GB are to be written but the disk has {free / 1e9:.1f} GB free;"
            " free space, choose another data.cache, or name cases in data.exclude"
        )
    return sizes
