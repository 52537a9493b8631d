"""The data layer against its bars, part by part."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kits.bench.bars import judge
from kits.core.errors import KitsError


def bench_data(config: dict[str, Any]) -> None:
    """Run the parts that `conf/bench_data.yaml` lists; each is a module beside this one with `measure(config)`.

    Raises:
        KitsError: no such part, or a bar falls short.
    """
    bars: dict[str, dict[str, float]] = {}
    measured: dict[str, float] = {}
    for part in config["parts"]:
        if part not in config["bars"]:
            raise KitsError(f"parts={part}: no such part; take some of {', '.join(config['bars'])}")
        print(f"\n{part}", flush=True)
        measured |= import_module(f"kits.bench.{part}").measure(config)
        bars |= config["bars"][part]
    print()
    judge(measured, bars)
