"""How long a command takes to answer before it does any work: its help, and mistakes of configuration."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from typing import Any

from kits.benches.bars import judge
from kits.config import check_whole
from kits.errors import KitsError


def bench_startup(config: dict[str, Any]) -> None:
    """Measure and hold against the bars of `conf/bench_startup.yaml`.

    Raises:
        KitsError: a call does something else than answer, or a bar falls short.
    """
    judge(measure(config), config["bars"])


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Seconds of wall time of each of `calls`, the best of `rounds`; each is also printed as a ratio to the bare interpreter.

    The rounds go around all calls, so that what else the machine does falls on all of them alike.
    """
    check_whole("rounds", config["rounds"], 1)
    calls = {name: ["-m", *shlex.split(f"kits.{call}")] for name, call in config["calls"].items()}
    everything = {"bare": ["-c", ""], **calls}
    best = dict.fromkeys(everything, float("inf"))
    for turn in range(config["rounds"] + 1):
        for name, call in everything.items():
            seconds = time_call(name, call)
            if turn:
                best[name] = min(best[name], seconds)
    bare = best.pop("bare")
    print(f"{'bare interpreter':>28} {bare:9.4f} s")
    for name, seconds in best.items():
        print(f"{name:>28} {seconds:9.4f} s = {seconds / bare:6.1f} bare starts: python {' '.join(calls[name])}")
    return best


def time_call(name: str, call: list[str]) -> float:
    """Seconds of one call in a process of its own, which must not get as far as its work.

    Raises:
        KitsError: it ends in another way than with an answer or a message of one line.
    """
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *call], capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    seconds = time.perf_counter() - began
    if done.returncode not in (0, 1) or len(done.stderr.splitlines()) > 1:
        raise KitsError(f"calls.{name}: ended with exit code {done.returncode} and said {done.stderr.strip()[-200:]}")
    return seconds
