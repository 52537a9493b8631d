"""The cost of `kits.prepare` beside merely decompressing the tree, and a worker's memory."""

from __future__ import annotations

import gzip
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kits.bench.timing import in_fresh_process, peak_gb, scratch_folder, seconds
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.data.layouts import find_data_set
from kits.data.preparation import prepare
from kits.io import read_geometry

WORKERS = 2


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure `prepare` over reading all files, and `worker_memory`: its peak over the largest volume."""
    root = Path(config["root"])
    data: Data = parse(Data, {**config["data"], "root": str(root), "workers": WORKERS}, "data")
    cases = list(find_data_set(data, root).cases.values())
    largest = max(math.prod(read_geometry(case.image).size) * 2 for case in cases)
    files = sorted((path for case in cases for path in (case.image, case.label)), key=lambda path: -path.stat().st_size)
    for path in files:  # once for all: nobody waits for the disk
        path.read_bytes()
    with scratch_folder(config) as cache:
        before = read_all(files)
        # The only children of that process are the workers: their peak is what the system reports for children.
        taken, peak = in_fresh_process(timed_prepare, data.model_copy(update={"cache": str(cache)}))
        after = read_all(files)
    print(
        f"{len(cases)} cases: reading {before:.1f} s and {after:.1f} s, prepare {taken:.1f} s;"
        f" largest volume {largest / 1e6:.0f} MB, worker {peak / 1e6:.0f} MB"
    )
    return {"prepare": taken / ((before + after) / 2), "worker_memory": peak / largest}


def read_all(files: list[Path]) -> float:
    """Time, in seconds, to decompress every file in two processes, the largest first."""

    def work() -> None:
        with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
            list(pool.map(read_to_end, files))

    return seconds(work)


def read_to_end(path: Path) -> None:
    """Decompress a file and forget it."""
    with gzip.open(path) as stream:
        while stream.read(1 << 20):
            pass


def timed_prepare(data: Data) -> tuple[float, float]:
    """Time a prepare in seconds, and measure the peak resident bytes of the largest of its workers."""
    return seconds(lambda: prepare(data)), 1e9 * peak_gb(children=True)
