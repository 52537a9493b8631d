"""`python -m kits.crossval stage=coarse|fine data.root=DIR output=DIR`: all folds of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Crossval


@command("crossval")
def main(options: Crossval) -> None:
    """Prepare folds, train a stage on each, predict every case out of fold, and give one table.

    With intervals of the means.
    """
    from kits.config.composing import typed
    from kits.workflows.folds import run_folds

    run_folds(options, typed())


if __name__ == "__main__":
    main()
