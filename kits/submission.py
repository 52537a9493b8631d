"""`python -m kits.submission predictions=DIR [images=DIR]`: the zip for KiTS19's leaderboard."""

from pathlib import Path
from typing import TYPE_CHECKING

from kits.config import require
from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Submission


@command("submission")
def main(options: "Submission") -> None:
    """Write `predictions.zip` into the folder of predictions, or check a zip that is there already."""
    from kits.prediction.leaderboard import TEST_CASES, check_submission, write_submission

    images = None if options.images is None else Path(options.images)
    if options.zip is None:
        folder = require(options.predictions, "predictions", "add predictions=DIR, the output of kits.predict, or zip=FILE")
        path = write_submission(Path(folder), images)
    else:
        path = Path(options.zip)
        check_submission(path, images)
    print(f"{path}: {len(TEST_CASES)} predictions, checked")


if __name__ == "__main__":
    main()
