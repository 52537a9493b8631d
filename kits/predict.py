"""`python -m kits.predict [coarse=CKPT fine=CKPT] input=... output=...`: segment scans."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Predict


@command("predict")
def main(options: "Predict") -> None:
    """Write what `save` names of each input, in its own grid, and `report.json` beside it."""
    from kits.prediction.segmenting import predict_labels
    from kits.readout.cohort import READOUT, readout_of

    predict_labels(options, {READOUT: readout_of} if options.measure else None)


if __name__ == "__main__":
    main()
