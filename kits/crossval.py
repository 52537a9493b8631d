"""`python -m kits.crossval stage=coarse|fine data.root=DIR output=DIR`: all folds of a stage."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.workflow import Crossval


@command("crossval")
def main(options: "Crossval") -> None:
    """Prepare folds, train a stage on each, predict every case out of fold; one table with intervals."""
    from kits.config.composing import typed_overrides
    from kits.workflows.folds import run_folds

    run_folds(options, typed_overrides())


if __name__ == "__main__":
    main()
