"""Tools of all measurements: time, peak memory, a process or a folder of its own, bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from math import inf
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from kits.config.schema.benches import Bar
from kits.core.errors import KitsError
from kits.core.parallel import end_with_parent
from kits.core.peak_memory import peak_bytes
from kits.io import make_folder
from kits.volume import Grid

T = TypeVar("T")


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Measure the wall time of one call, its result dropped again; or what another clock says."""
    began = clock()
    call()
    return clock() - began


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time every call in every round, in seconds: a busy moment of the machine meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return taken


def peak_gb(*, children: bool = False) -> float:
    """Return `peak_bytes` in 10^9 bytes."""
    return peak_bytes(children=children) / 1e9


def in_fresh_process(work: Callable[..., T], *task: Any) -> T:
    """Return what `work(*task)` returns in a process, with memory and children, of its own."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            return pool.submit(work, *task).result()
    except BrokenProcessPool as error:
        raise KitsError(f"{work.__module__}: the measured process was killed; was memory short?") from error


@contextmanager
def scratch_folder(config: Mapping[str, Any]) -> Iterator[Path]:
    """Make a folder within `config.scratch` for what is measured; it goes with all that is in it."""
    make_folder(Path(config["scratch"]), "scratch")
    with TemporaryDirectory(dir=config["scratch"]) as folder:
        yield Path(folder)


def upright(shape: Sequence[int], spacing: Sequence[float]) -> Grid:
    """Make a grid of this shape and spacing in mm, both (z, y, x), whose axes run as the arrays' do."""
    (depth, height, width), (z, y, x) = shape, spacing
    return Grid((width, height, depth), (x, y, z), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def judge(measured: Mapping[str, float], bars: Mapping[str, Bar]) -> None:
    """Print each figure against its bar as a ratio that is at least 1 where the bar is met."""
    short = []
    print()
    for name, bar in bars.items():
        if name not in measured:
            print(f"{name:>28} not measured")
            continue
        value = measured[name]
        if bar.most is None:
            assert bar.least is not None
            ratio, wanted = value / bar.least, f">= {bar.least:g}"
        else:
            ratio, wanted = inf if value <= 0 else bar.most / value, f"<= {bar.most:g}"
        print(f"{name:>28} {value:9.4f}  bar {wanted:>8}  ratio {ratio:.3f}")
        if not ratio >= 1:
            short.append(name)
    if short:
        raise KitsError(f"{', '.join(short)}: short of the bar")
