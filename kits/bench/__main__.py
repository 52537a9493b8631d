"""Measurements, `python -m kits.bench NAME [key=value ...]`; exits with 1 where a bar falls short."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from kits.config.command import command
from kits.core.errors import KitsError

# Name: the module whose `measure` measures what conf/bench_NAME.yaml asks for.
BENCHES = {
    "demo": "demo",  # the demo against its bars: minutes, kidney and tumor Dice
    "data": None,  # its parts: reading, preparing, random access, loading
    "threshold": "threshold",  # a painted tree against HU alone
    "startup": "startup",  # --help and a mistake on the command line
    "logging": "logging_cost",  # what log and callbacks cost of a training's steps
    "predict": None,  # its parts: against nnU-Net and plain reading, memory
    "peers": "peers",  # the two stages against one-stage networks
    "model": "training_step",  # a fine training step against plain passes
    "evaluate": "scoring",  # all figures of a case against MONAI's functions
    "readout": "readout_bars",  # the clinical read-out against closed forms
    "readout_study": "robustness",  # the same on real label maps, and on changed ones
    "shipped": "gate",  # the networks that come with the package: built, and held against their gate
    "ddp": "ddp",  # two processes that train together against one alone
}
# What `parts` of a configuration names, and the function of which module measures it.
PARTS = {
    "reading": "data_parts.measure_reading",
    "preparing": "data_parts.measure_preparing",
    "access": "data_parts.measure_access",
    "loading": "loading.measure",
    "speed": "predict_parts.measure_speed",
    "footprint": "predict_parts.measure_footprint",
}


def main() -> None:
    """Run the benchmark that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(f"usage: python -m kits.bench NAME [key=value ...]\n\n{main.__doc__}\n\nNAME: {', '.join(BENCHES)}")
        return
    if name not in BENCHES:
        print(f"kits.bench: {name or 'no name given'}: no such benchmark; take one of {', '.join(BENCHES)}", file=sys.stderr)
        raise SystemExit(2)
    del sys.argv[1]

    @command("demo" if name == "demo" else f"bench_{name}")
    def run(options: Any) -> None:
        from kits.bench.timing import judge
        from kits.config import plain
        from kits.config.schema import parse
        from kits.config.schema.benches import Bar

        measured: dict[str, float] = {}
        parts = (
            {part: PARTS.get(part) for part in options["parts"]} if BENCHES[name] is None else {name: f"{BENCHES[name]}.measure"}
        )
        for part, place in parts.items():
            if place is None:
                raise KitsError(f"parts={part}: no such part; take some of {', '.join(PARTS)}")
            print(f"\n{part}", flush=True)
            module, function = place.split(".")
            measured |= getattr(import_module(f"kits.bench.{module}"), function)(options)
        judge(measured, parse(dict[str, Bar], plain(options).get("bars", {}), "bars"))

    run()


if __name__ == "__main__":
    main()
