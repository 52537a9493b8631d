"""`python -m kits.show_model [folder=DIR]`: the networks that come with kits, and what they are."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import ShowModel


@command("show_model")
def main(options: "ShowModel") -> None:
    """Print the model card, files with size and SHA-256, and what the networks were made of."""
    from kits.io.shipped import describe

    print(describe(options.folder))


if __name__ == "__main__":
    main()
