"""The demo: the whole way on phantoms, each step the real command that a researcher would type."""

from __future__ import annotations

import json
import resource
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from kits.bench.bars import judge
from kits.workflows.step import run_process


def run_demo(config: dict[str, Any]) -> None:
    """Run every step of `conf/demo.yaml`, then hold the result against its bars.

    Raises:
        KitsError: a step fails, or a bar falls short.
    """
    began = time.monotonic()
    for step in config["steps"]:
        name, *arguments = shlex.split(step)
        run_process(name, arguments)
    minutes = (time.monotonic() - began) / 60
    # The largest child; Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    output = Path(config["output"])
    print(f"\nHeld-out cases, which training never saw:\n\n{(output / 'evaluation' / 'table.txt').read_text(encoding='utf-8')}")
    print(f"pictures: {output / 'report'}")
    print(f"time {minutes:.1f} min, peak memory of a step {peak:.1f} GiB\n")
    summary = json.loads((output / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    judge({"kidney": summary["kidney"], "tumor": summary["tumor"], "minutes": minutes}, config["bars"])
