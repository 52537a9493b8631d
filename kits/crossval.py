"""`python -m kits.crossval stage=coarse|fine data.root=DIR output=DIR`: every fold trained, every case predicted out of fold."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Crossval

# Keys of conf/crossval.yaml, and the steps that may stand before a key.
OWN = ("output", "coarse", "overwrite", "bootstrap", "overrides")
STEPS = ("prepare", "predict", "evaluate")


def main() -> None:
    """Let Hydra read what is this command's own, and the rest as the steps' overrides."""
    from kits.workflows.command_line import gathered

    sys.argv[1:] = gathered(sys.argv[1:], OWN, STEPS, rest="train")
    run()


@command("crossval")
def run(options: Crossval) -> None:
    """Prepare folds, train a stage on each, predict every case out of fold, and give one table with intervals of the means."""
    from kits.workflows.folds import run_folds

    run_folds(options)


if __name__ == "__main__":
    main()
