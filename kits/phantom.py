"""`python -m kits.phantom output=DIR cases=N seed=S [labels=DIR]`: painted CT with label maps in KiTS19's layout."""

from __future__ import annotations

from typing import Any

from kits.config.command import command


@command("phantom")
def main(config: dict[str, Any]) -> None:
    """Write the phantom data set that `conf/phantom.yaml` and the command line describe."""
    from kits.config.schema import parse
    from kits.config.schema.phantoms import Phantom
    from kits.painter.trees import write_dataset

    write_dataset(parse(Phantom, config))


if __name__ == "__main__":
    main()
