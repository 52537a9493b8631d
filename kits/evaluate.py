"""`python -m kits.evaluate prediction=DIR truth=DIR output=DIR [data=kits23]`: Dice of every expected case, and the means.

`data` says of what set the truth is: the name of its label maps, and whether it tells cysts apart. KiTS19's scores count a cyst
as kidney, in the truth and in the prediction; where the data set has cysts their own Dice is one column more.

The expected cases decide, not the files found: a case without a usable prediction scores 0 and is listed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.cli import command
from kits.errors import KitsError

# Grids of one scan may differ in the last digits of their floats (KiTS19's own pairs do).
SAME_MM, SAME_COSINE = 0.1, 1e-3


@command("evaluate")
def main(config: dict[str, Any]) -> None:
    """Score, write `cases.csv`, `summary.json` and `table.txt`, and print the table."""
    from kits.data.index import case_ids
    from kits.data.splits import refuse_lone_fold

    truth = Path(config["truth"])
    data, label_name = config["data"], config["data"]["label_name"]
    split = config["split"]["source"]
    refuse_lone_fold(split, config["fold"])
    named = case_ids(config["cases"])
    cases = expected_cases(truth, named, split, config["subset"], config["fold"], label_name=label_name)
    options = {"cases": cases, "label_name": label_name, "classes": data["classes"], "workers": config["workers"]}
    print(evaluate(Path(config["prediction"]), truth, Path(config["output"]), **options))


@dataclass(frozen=True)
class Row:
    """One case: its Dice scores by name, and `ok` or what is wrong with it."""

    case: str
    scores: dict[str, float]
    status: str
    scored: bool


def expected_cases(
    truth: Path, cases: Sequence[str] | None, split: str | None, subset: str, fold: int | None = None, *, label_name: str
) -> list[str]:
    """The cases that must have a prediction: those named, those of a split's subset, or all labelled cases of the tree.

    Raises:
        KitsError: the tree does not exist or has no label map of an expected case, or the list is empty.
    """
    from kits.data.splits import read_split

    if not truth.is_dir():
        raise KitsError(f"truth={truth}: no such folder; give the tree that holds case_00000/{label_name}, ...")
    labelled = sorted(path.parent.name for path in truth.glob(f"case_*/{label_name}"))
    if not labelled:
        raise KitsError(
            f"truth={truth}: no case_XXXXX/{label_name} in it; scores need label maps (those of KiTS21: add data=kits21)"
        )
    if cases is None:
        cases = labelled if split is None else read_split(Path(split)).subset(subset, fold)
    expected = list(dict.fromkeys(str(case) for case in cases))
    if not expected:
        raise KitsError("cases: the list is empty; name at least one case, or leave it out for all")
    unknown = [case for case in expected if case not in set(labelled)]
    if unknown:
        raise KitsError(f"truth={truth}: no label map of {', '.join(unknown)}; it has {labelled[0]} to {labelled[-1]}")
    return expected


def evaluate(
    prediction: Path,
    truth: Path,
    output: Path,
    *,
    cases: Sequence[str],
    label_name: str,
    classes: Sequence[str],
    workers: int,
) -> str:
    """Score `prediction/CASE.nii.gz` against `truth/CASE/LABEL_NAME` and write the results to `output`.

    Args:
        cases: the expected cases, in the order of the table.
        label_name, classes: of the truth's data set, `data.label_name` and `data.classes`.
        workers: processes; 1 stays in this one.

    Returns:
        The table that is also written to `table.txt`.

    Raises:
        KitsError: no folder of predictions, or a label map of the truth is damaged.
    """
    from kits.io import write_json, write_text
    from kits.metrics import summarize
    from kits.parallel import map_cases

    if not prediction.is_dir():
        raise KitsError(f"prediction={prediction}: no such folder; give the output of kits.predict")
    calls = [(prediction, truth / case / label_name, case, classes) for case in cases]
    rows = [row for row in map_cases(score, calls, workers=workers, desc="evaluate") if isinstance(row, Row)]
    means = summarize(row.scores for row in rows)
    missing = [row.case for row in rows if not row.scored]
    summary: dict[str, Any] = {"cases": len(rows), **means, **({"missing": missing} if missing else {})}
    table = as_table(rows, means)
    write_text(output / "cases.csv", as_csv(rows))
    write_json(output / "summary.json", summary)
    write_text(output / "table.txt", table)
    return table


def score(prediction: Path, truth: Path, case: str, classes: Sequence[str]) -> Row:
    """One case; whatever is wrong with its prediction becomes its status and scores 0.

    Args:
        prediction: folder of predictions.
        truth: the case's label map, with labels of these classes only; a prediction may hold every label that there is.

    Raises:
        KitsError: the truth itself is damaged.
    """
    from kits.io import read_labels
    from kits.labels import CLASSES, regions_of
    from kits.metrics import score_case, score_names

    true = read_labels(truth, allowed=range(len(classes)))
    regions = regions_of(classes)
    path = prediction / f"{case}.nii.gz"
    nothing = dict.fromkeys(score_names(regions), 0.0)
    if not path.is_file():
        return Row(case, nothing, f"missing: no {path.name}", scored=False)
    try:
        found = read_labels(path, allowed=range(len(CLASSES)))
        scores = score_case(found.array, true.array, regions)
    except KitsError as error:
        return Row(case, nothing, str(error), scored=False)
    return Row(case, scores, geometry_status(found.grid, true.grid), scored=True)


def geometry_status(found: Any, true: Any) -> str:
    """`ok`, or in which part of its header a prediction's grid differs from the truth's: scored voxel by voxel all the same."""
    import numpy as np

    for part, tolerance in (("spacing", SAME_MM / 100), ("origin", SAME_MM), ("direction", SAME_COSINE)):
        if not np.allclose(getattr(found, part), getattr(true, part), rtol=0, atol=tolerance):
            return f"ok, but its {part} is not the truth's"
    return "ok"


def as_csv(rows: Sequence[Row]) -> str:
    """`case,kidney,tumor,composite,status`, one line a case; `cyst` after the tumor where there are any."""
    names = list(rows[0].scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *names, "status"])
    for row in rows:
        writer.writerow([row.case, *(f"{row.scores[name]:.6f}" for name in names), row.status])
    return text.getvalue()


def as_table(rows: Sequence[Row], means: dict[str, float]) -> str:
    """The scores for a reader, the mean last, and a line for the cases that scored 0 for want of a usable prediction."""
    width = max(len(row.case) for row in rows)
    lines = [f"{'case':<{width}} " + "".join(f"{name:>11}" for name in means)]
    for row in rows:
        values = "".join(f"{row.scores[name]:11.4f}" for name in means)
        lines.append(f"{row.case:<{width}} {values}" + ("" if row.status == "ok" else f"  {row.status}"))
    lines.append(f"{'mean':<{width}} " + "".join(f"{means[name]:11.4f}" for name in means))
    missing = sum(not row.scored for row in rows)
    if missing:
        lines.append(f"{missing} of {len(rows)} cases have no usable prediction and count as 0")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
