"""`python -m kits.evaluate prediction=DIR truth=DIR output=DIR [data=kits23]`: all scores.

`data` says of what set the truth is: the name of its label maps, and whether it tells cysts apart. KiTS19's scores count a cyst
as kidney, in the truth and in the prediction; where the data set has cysts the hierarchical classes of KiTS21 and KiTS23 are
scored beside KiTS19's. The expected cases decide, not the files found: a case without a usable prediction scores 0.
"""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Evaluate


@command("evaluate")
def main(options: "Evaluate") -> None:
    """Score, write `cases.csv`, `tumors.csv`, `summary.json` and `table.txt`, and print the table."""
    from kits.metrics.folder_scores import evaluate

    print(evaluate(options))


if __name__ == "__main__":
    main()
