"""Score the predictions of a folder: all figures of every expected case, whatever files there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kits.config.schema.commands import Evaluate
from kits.config.schema.evaluation import Measures
from kits.core.errors import KitsError
from kits.core.labels import CLASSES, evaluated_regions
from kits.core.parallel import map_cases
from kits.data.classes import judge_truths
from kits.data.index import KNOWN, case_id, case_ids, case_number, find_predictions, label_maps, match
from kits.data.splits import wanted_cases
from kits.io import read_geometry, read_labels, write_json, write_text
from kits.metrics.case import columns, measure_case
from kits.metrics.mistaken import explain_misfit
from kits.metrics.summary import Draws, Row, summary_of
from kits.metrics.tables import cases_csv, readable, tumors_csv
from kits.volume import bring_to, compare


def evaluate(options: Evaluate) -> str:
    """Score the predictions in a folder, under whichever known names, and write the results to `output`.

    Returns:
        The table that is also written to `table.txt`.

    Raises:
        KitsError: no prediction of any case, a label map of the truth is damaged, or its labels do not mean what `data` says; or,
            with everything written, not one prediction can be used.
    """
    data, measures, bootstrap = options.data, options.measures, options.bootstrap
    prediction, output = Path(options.prediction), Path(options.output)
    cases = wanted_cases(case_ids(options.cases), options.split_file, options.subset, options.fold)
    truths = find_truths(Path(options.truth), cases, data.label_name)
    found = find_predictions(prediction, truths, data.label_name)
    for case, path in found.items():
        if path.samefile(truths[case]):
            raise KitsError(f"prediction={prediction}: {path} is the truth itself; give the output of kits.predict")
    doubts = judge_truths(truths, data.ids, workers=options.workers)
    calls = [(found.get(case), path, case, data.classes, data.ids, measures) for case, path in truths.items()]
    rows: list[Any] = map_cases(score, calls, workers=options.workers, desc="evaluate")
    documented = columns(evaluated_regions(data.classes), measures)
    draws = Draws(len(truths), **dict(bootstrap))
    summary = summary_of(rows, documented, measures, draws)
    table = readable(rows, documented, summary) + "".join(f"{doubt}\n" for doubt in doubts)
    write_text(output / "cases.csv", cases_csv(rows, documented))
    write_text(output / "tumors.csv", tumors_csv(rows))
    write_json(output / "summary.json", summary)
    write_text(output / "table.txt", table)
    if not any(row.scored for row in rows):
        why = next(row.status for row in rows if row.case in found)
        raise KitsError(
            f"prediction={prediction}: none can be used ({why}); every score is 0, and {output / 'table.txt'} says why"
        )
    return table


def find_truths(truth: Path, cases: Sequence[str] | None, label_name: str) -> dict[str, Path]:
    """Find the label maps of these cases, or of all, in a KiTS tree or in a folder of files.

    Raises:
        KitsError: the list is empty, there is no such folder, no label map in it, or none of one of the cases.
    """
    if cases is not None and not cases:
        raise KitsError("cases: the list is empty; name at least one case, or leave it out for all")
    if not truth.is_dir():
        raise KitsError(f"truth={truth}: no such folder; give the tree that holds case_00000/{label_name}, ...")
    tree = {path.parent.name: [path] for path in sorted(truth.glob(f"*/{label_name}"))}
    files = {
        name: paths for name, paths in label_maps(truth).items() if case_number(name) is not None and paths[0].parent == truth
    }
    maps = tree or files
    if not maps:
        raise KitsError(
            f"truth={truth}: no CASE/{label_name} in it, and no label map with a name such as {KNOWN};"
            " scores need label maps (those of KiTS21: add data=kits21)"
        )
    labelled = list(dict.fromkeys(maps if tree else map(case_id, maps)))
    found = match(labelled if cases is None else cases, maps)
    if unknown := [case for case in cases or () if case not in found]:
        raise KitsError(f"truth={truth}: no label map of {', '.join(unknown)}; it has {labelled[0]} to {labelled[-1]}")
    return found


def score(
    prediction: Path | None, truth: Path, case: str, classes: Sequence[str], ids: Mapping[int, int], measures: Measures
) -> Row:
    """Score one case; whatever is wrong with its prediction becomes its status and scores 0.

    Args:
        prediction: its file, if there is one.
        truth: the case's label map, with these ids only; a prediction may hold every label that there is.

    Raises:
        KitsError: the truth itself is damaged.
    """
    # The truth's spacing holds for both: a prediction's header may say anything.
    true = read_labels(truth, ids)
    figures = partial(measure_case, truth=true.array, spacing=true.spacing, regions=evaluated_regions(classes), measures=measures)
    try:
        if prediction is None:
            raise KitsError("missing: no prediction under any known name")
        grid = read_geometry(prediction)
        differs = compare(grid, true.grid)
        if not differs.order and grid.shape_zyx != true.grid.shape_zyx:  # known before anything is decompressed
            raise KitsError(f"refused: {prediction.name} {differs}; predict this case again")
        found = bring_to(true.grid, read_labels(prediction, allowed=range(len(CLASSES))))
    except KitsError as error:
        return Row(case, figures(None), str(error), scored=False)
    told = [f"{differs}: scored voxel by voxel{' as stored' if differs.order else ''}"] if differs else []
    told += explain_misfit(found, true.array, true.spacing)
    status = f"ok, but {'; '.join(told)}" if told else "ok"
    return Row(case, figures(found), status, scored=True)
