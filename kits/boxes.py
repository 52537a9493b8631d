"""`python -m kits.boxes coarse=[CKPT,...] input=DIR output=DIR`: boxes.json for the fine stage."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Boxes


@command("boxes")
def main(options: "Boxes") -> None:
    """Find the ROIs of each case by the first coarse checkpoint not trained on it, as boxes.json."""
    from kits.prediction.out_of_fold import predict_out_of_fold

    predict_out_of_fold(options)


if __name__ == "__main__":
    main()
