"""One command of the project, and its process."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kits.core.errors import KitsError


@dataclass(frozen=True)
class Step:
    """`python -m kits.<command> <arguments>`, what it reads and what it leaves.

    Attributes:
        name: unique in a plan; the stamp's name too.
        arguments: overrides, as they are typed.
        config: the plain configuration that they give.
        inputs, outputs: files and folders, by what a reader calls them.
    """

    name: str
    command: str
    arguments: Sequence[str]
    config: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]


def run_process(command: str, arguments: Sequence[str]) -> None:
    """Print one command as a reader would type it, run it with this interpreter, and wait however this process is told to end.

    A training saves what it has when it is told to end (SIGTERM, Ctrl-C), so it is told, and waited for.

    Raises:
        KitsError: it fails.
        SystemExit: this process was told to end, with the shell's code, 128 + signal.
    """
    print(f"\n$ python -m kits.{command} {shlex.join(arguments)}", flush=True)
    began = time.monotonic()
    told: list[int] = []
    process = subprocess.Popen([sys.executable, "-m", f"kits.{command}", *arguments])

    def pass_on(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if number == signal.SIGTERM:  # Ctrl-C reaches every process of a terminal by itself
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        print(f"{signal.Signals(told[0]).name} during kits.{command}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(128 + told[0])
    if code:
        raise KitsError(f"the step kits.{command} ended with exit code {code}; what it said stands above")
    print(f"  [{time.monotonic() - began:.0f} s]", flush=True)
