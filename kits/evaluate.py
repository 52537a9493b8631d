"""`python -m kits.evaluate prediction=DIR truth=DIR output=DIR [data=kits23]`: all figures of every expected case.

`data` says of what set the truth is: the name of its label maps, and whether it tells cysts apart. KiTS19's scores count a cyst
as kidney, in the truth and in the prediction; where the data set has cysts the hierarchical classes of KiTS21 and KiTS23 are
scored beside KiTS19's.

The expected cases decide, not the files found: a case without a usable prediction scores 0 and is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.cli import command
from kits.errors import KitsError

if TYPE_CHECKING:
    from kits.metrics.summary import Row

# Grids of one scan may differ in the last digits of their floats (KiTS19's own pairs do).
SAME_MM, SAME_COSINE = 0.1, 1e-3


@command("evaluate")
def main(config: dict[str, Any]) -> None:
    """Score, write `cases.csv`, `tumors.csv`, `summary.json` and `table.txt`, and print the table."""
    from kits.data.index import case_ids
    from kits.data.splits import refuse_lone_fold

    truth = Path(config["truth"])
    data, label_name = config["data"], config["data"]["label_name"]
    split = config["split"]["source"]
    refuse_lone_fold(split, config["fold"])
    named = case_ids(config["cases"])
    cases = expected_cases(truth, named, split, config["subset"], config["fold"], label_name=label_name)
    options = {"cases": cases, "label_name": label_name, "classes": data["classes"]}
    options |= {key: config[key] for key in ("measures", "bootstrap", "workers")}
    print(evaluate(Path(config["prediction"]), truth, Path(config["output"]), **options))


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
    measures: Mapping[str, Any],
    bootstrap: Mapping[str, Any],
    workers: int,
) -> str:
    """Score `prediction/CASE.nii.gz` against `truth/CASE/LABEL_NAME` and write the results to `output`.

    Args:
        cases: the expected cases, in the order of the table.
        label_name, classes: of the truth's data set, `data.label_name` and `data.classes`.
        measures, bootstrap: as in conf/evaluate.yaml.
        workers: processes; 1 stays in this one.

    Returns:
        The table that is also written to `table.txt`.

    Raises:
        KitsError: no folder of predictions, a label map of the truth is damaged, or a measure is set to what it cannot be.
    """
    from kits.io import write_json, write_text
    from kits.labels import evaluated_regions
    from kits.metrics.bootstrap import Bootstrap
    from kits.metrics.case import Measures, columns
    from kits.metrics.summary import Row, summary_of
    from kits.metrics.tables import cases_csv, readable, tumors_csv
    from kits.parallel import map_cases

    if not prediction.is_dir():
        raise KitsError(f"prediction={prediction}: no such folder; give the output of kits.predict")
    measured, draws = Measures(**measures), Bootstrap(len(cases), **bootstrap)
    calls = [(prediction, truth / case / label_name, case, classes, measured) for case in cases]
    rows = [row for row in map_cases(score, calls, workers=workers, desc="evaluate") if isinstance(row, Row)]
    documented = columns(evaluated_regions(classes), measured)
    summary = summary_of(rows, documented, measured, draws)
    table = readable(rows, documented, summary)
    write_text(output / "cases.csv", cases_csv(rows, documented))
    write_text(output / "tumors.csv", tumors_csv(rows))
    write_json(output / "summary.json", summary)
    write_text(output / "table.txt", table)
    return table


def score(prediction: Path, truth: Path, case: str, classes: Sequence[str], measures: Any) -> Row:
    """One case; whatever is wrong with its prediction becomes its status and scores 0.

    Args:
        prediction: folder of predictions.
        truth: the case's label map, with labels of these classes only; a prediction may hold every label that there is.
        measures: `kits.metrics.case.Measures`.

    Raises:
        KitsError: the truth itself is damaged.
    """
    from kits.io import read_labels
    from kits.labels import CLASSES, evaluated_regions
    from kits.metrics.case import measure_case
    from kits.metrics.summary import Row

    # The truth's spacing holds for both: a prediction's header may say anything.
    true = read_labels(truth, allowed=range(len(classes)))
    case_of = partial(measure_case, truth=true.array, spacing=true.spacing, regions=evaluated_regions(classes), measures=measures)
    path = prediction / f"{case}.nii.gz"
    try:
        if not path.is_file():
            raise KitsError(f"missing: no {path.name}")
        found = read_labels(path, allowed=range(len(CLASSES)))
        return Row(case, case_of(found.array), geometry_status(found.grid, true.grid), scored=True)
    except KitsError as error:
        return Row(case, case_of(None), str(error), scored=False)


def geometry_status(found: Any, true: Any) -> str:
    """`ok`, or in which part of its header a prediction's grid differs from the truth's: scored voxel by voxel all the same."""
    import numpy as np

    for part, tolerance in (("spacing", SAME_MM / 100), ("origin", SAME_MM), ("direction", SAME_COSINE)):
        if not np.allclose(getattr(found, part), getattr(true, part), rtol=0, atol=tolerance):
            return f"ok, but its {part} is not the truth's"
    return "ok"


if __name__ == "__main__":
    main()
