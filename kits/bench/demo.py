"""The demo: the whole way on phantoms, each step the real command that a researcher would type."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

from kits.bench.timing import peak_gb
from kits.config.schema.benches import Demo
from kits.workflows.step import run_process


def measure(options: Demo) -> dict[str, float]:
    """Run every step of `conf/demo.yaml`: kidney and tumor Dice, and minutes."""
    began = time.monotonic()
    for step in options.steps:
        name, *arguments = shlex.split(step)
        run_process(name, arguments)
    minutes = (time.monotonic() - began) / 60
    output = Path(options.output)
    print(f"\nHeld-out cases, which training never saw:\n\n{(output / 'evaluation' / 'table.txt').read_text(encoding='utf-8')}")
    print(f"pictures: {output / 'report'}")
    print(f"time {minutes:.1f} min, peak memory of a step {peak_gb(children=True):.1f} GB")
    summary = json.loads((output / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    return {"kidney": summary["kidney"], "tumor": summary["tumor"], "minutes": minutes}
