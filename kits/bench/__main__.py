"""`python -m kits.bench NAME [key=value ...]`: measure, print the ratios last, exit with 1 where a bar falls short."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from kits.config.command import command

# Name: the configuration in conf/, and the module and function that measure.
BENCHES = {
    "demo": ("demo", "kits.bench.demo", "run_demo"),  # the demo against its bars: minutes, kidney and tumor Dice
    "data": ("bench_data", "kits.bench.data_layer", "bench_data"),  # reading, preparing, random access, loading
    "threshold": ("bench_threshold", "kits.bench.threshold", "bench_threshold"),  # a painted tree against HU alone
    "startup": ("bench_startup", "kits.bench.startup", "bench_startup"),  # --help and a mistake on the command line
    "logging": ("bench_logging", "kits.bench.logging_cost", "bench_logging"),  # what log and callbacks cost of a training's steps
    "predict": (
        "bench_predict",
        "kits.bench.data_layer",
        "bench_data",
    ),  # against nnU-Net and plain reading
    "peers": ("bench_peers", "kits.bench.peers", "bench_peers"),  # the two stages against one-stage networks
    "model": (
        "bench_model",
        "kits.bench.training_step",
        "bench_model",
    ),  # a fine training step against plain passes
    "evaluate": ("bench_evaluate", "kits.bench.scoring", "bench_evaluate"),  # all figures of a case against MONAI's functions
    "readout": ("bench_readout", "kits.bench.known_bodies", "bench_readout"),  # the clinical read-out against closed forms
    # The same on real label maps: agreement with the records, and how far numbers move when a map is changed.
    "readout_study": ("bench_readout_study", "kits.bench.robustness", "bench_study"),
    "ddp": ("bench_ddp", "kits.bench.ddp", "bench_ddp"),  # two processes that train together against one alone
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
    configuration, module, function = BENCHES[name]

    @command(configuration)
    def measure(config: dict[str, Any]) -> None:
        getattr(import_module(module), function)(config)

    measure()


if __name__ == "__main__":
    main()
