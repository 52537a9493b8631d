"""`python -m kits.phantom output=DIR cases=N seed=S [labels=DIR]`: painted CT like KiTS19's."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.phantoms import Phantom


@command("phantom")
def main(options: "Phantom") -> None:
    """Write the phantom data set that `conf/phantom.yaml` and the command line describe."""
    from kits.painter.trees import write_dataset

    write_dataset(options)


if __name__ == "__main__":
    main()
