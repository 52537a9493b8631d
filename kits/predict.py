"""`python -m kits.predict coarse=CKPT fine=CKPT input=... output=...`: segment scans, from one file to a cohort.

With `split=oof coarse=[CKPT,...]` it writes no label maps but `boxes.json`, the ROIs that the fine stage can be trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Predict

OUT_OF_FOLD = "oof"


@command("predict")
def main(options: Predict) -> None:
    """Write what `save` names of each input, in its own grid, and `report.json` beside it; or `boxes.json`."""
    if options.split.source == OUT_OF_FOLD:
        from kits.prediction.out_of_fold import predict_out_of_fold

        predict_out_of_fold(options)
    else:
        from kits.prediction.segmenting import predict_labels
        from kits.readout.cohort import READOUT, readout_of

        predict_labels(options, {READOUT: readout_of} if options.measure else None)


if __name__ == "__main__":
    main()
