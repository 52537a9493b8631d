"""`python -m kits.demo`: the whole way on phantoms, each step the real command that a researcher would type."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kits.benches.bars import judge
from kits.cli import command
from kits.errors import KitsError


@command("demo")
def main(config: dict[str, Any]) -> None:
    """Run the steps, print the held-out cases' table, and exit with 1 where a bar falls short."""
    run_demo(config)


def run_demo(config: dict[str, Any]) -> None:
    """Run every step of `conf/demo.yaml`, then hold the result against its bars.

    Raises:
        KitsError: a step fails, or a bar falls short.
    """
    began = time.monotonic()
    for step in config["steps"]:
        run_step(step)
    minutes = (time.monotonic() - began) / 60
    # The largest child; Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    output = Path(config["output"])
    print(f"\nHeld-out cases, which training never saw:\n\n{(output / 'evaluation' / 'table.txt').read_text()}")
    print(f"pictures: {output / 'report'}")
    print(f"time {minutes:.1f} min, peak memory of a step {peak:.1f} GiB\n")
    summary = json.loads((output / "evaluation" / "summary.json").read_text())
    judge({"kidney": summary["kidney"], "tumor": summary["tumor"], "minutes": minutes}, config["bars"])


def run_step(step: str) -> None:
    """Print one command as a reader would type it, and run it with this interpreter."""
    name, *arguments = shlex.split(step)
    print(f"\n$ python -m kits.{name} {' '.join(arguments)}", flush=True)
    began = time.monotonic()
    code = subprocess.run([sys.executable, "-m", f"kits.{name}", *arguments]).returncode
    if code:
        raise KitsError(f"the step kits.{name} ended with exit code {code}; what it said stands above")
    print(f"  [{time.monotonic() - began:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
