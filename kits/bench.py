"""`python -m kits.bench NAME [key=value ...]`: measure, print the ratios last, exit with 1 where a bar falls short."""

from __future__ import annotations

import sys
from typing import Any

from kits.cli import command


def bench_demo() -> None:
    """The demo against its bars: minutes, kidney and tumor Dice."""

    @command("demo")
    def run(config: dict[str, Any]) -> None:
        from kits.demo import run_demo

        run_demo(config)

    run()


def bench_data() -> None:
    """The data layer: reading, preparing, random access and loading."""

    @command("bench_data")
    def run(config: dict[str, Any]) -> None:
        from kits.benches import data

        data.bench_data(config)

    run()


def bench_model() -> None:
    """One training step of the fine stage against the plain passes of its encoders."""

    @command("bench_model")
    def run(config: dict[str, Any]) -> None:
        from kits.benches import model

        model.bench_model(config)

    run()


BENCHES = {"demo": bench_demo, "data": bench_data, "model": bench_model}


def main() -> None:
    """Run the benchmark that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHES:
        print(f"kits.bench: {name or 'no name given'}: no such benchmark; take one of {', '.join(BENCHES)}", file=sys.stderr)
        raise SystemExit(2)
    del sys.argv[1]
    BENCHES[name]()


if __name__ == "__main__":
    main()
