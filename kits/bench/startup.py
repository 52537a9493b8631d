"""The time of a command before it does any work: its help, and mistakes of configuration."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time

from kits.config.schema.benches import StartupBench
from kits.core.errors import KitsError


def measure(options: StartupBench) -> dict[str, float]:
    """Measure seconds of wall time of each of `calls`, the best of `rounds` around all of them.

    They are printed with their ratio to the bare interpreter and their processor time, which tells on a busy machine what an idle
    one would need.
    """
    calls = {name: ["-m", *shlex.split(f"kits.{call}")] for name, call in options.calls.items()}
    everything = {"bare": ["-c", ""], **calls}
    rounds = [{name: time_call(name, call) for name, call in everything.items()} for _ in range(options.rounds + 1)][1:]
    best, processor = ({name: min(taken[name][clock] for taken in rounds) for name in everything} for clock in (0, 1))
    bare = best.pop("bare")
    print(f"{'bare interpreter':>28} {bare:9.4f} s")
    for name, seconds in best.items():
        spent = f"{seconds:9.4f} s = {seconds / bare:5.1f} bare starts, {processor[name]:.3f} s of a processor"
        print(f"{name:>28} {spent}: python {' '.join(calls[name])}")
    return best


def time_call(name: str, call: list[str]) -> tuple[float, float]:
    """Time a call in its own process, seconds of wall and of processor; it must not get to its work."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *call], capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    seconds, after = time.perf_counter() - began, os.times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode not in (0, 1) or len(done.stderr.splitlines()) > 1:
        raise KitsError(f"calls.{name}: ended with exit code {done.returncode} and said {done.stderr.strip()[-200:]}")
    return seconds, busy
