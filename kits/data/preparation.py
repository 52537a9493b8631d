"""The way from a KiTS tree to a cache that training reads: validate, split, store, describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from kits.config.schema.base import text
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, classes_by_id
from kits.core.parallel import map_cases
from kits.core.plain_files import read_object
from kits.data.cache import FORMAT, cache_settings, digest, prepare_case
from kits.data.classes import judge_classes
from kits.data.disk import announce_size, held_cache
from kits.data.findings import ERROR, Finding, errors, table, write_findings
from kits.data.index import Case
from kits.data.layouts import find_data_set, label_ids
from kits.data.prepared import Index
from kits.data.records import CaseRecord
from kits.data.splits import check_kept, settle_split
from kits.data.validate import listed_spacing
from kits.io import write_json
from kits.io.tree import summary


def prepare(data: Data) -> Index:
    """Validate and cache every case of `data.root`, and write its index, splits and findings.

    What an earlier run finished is kept, so that an interrupted one goes on where it stopped.

    Returns:
        The index: settings, data hash, one record a case.

    Raises:
        KitsError: the root has no cases, the disk has no room, cases are damaged and `data.skip_invalid` is false, or
            `splits.json` holds another split.
    """
    assert data.root is not None
    root, cache = Path(data.root), Path(data.cache)
    found = find_data_set(data, root)
    if data.labels is None:
        refuse_other_ids(label_ids(data, found))
    for line in summary(found.left_out):
        tqdm.write(f"left out: {line}")
    cases = list(found.cases.values())
    split = check_kept(cache / "splits.json", data.split)
    with held_cache(cache):
        listed = listed_spacing(root)
        results = prepare_all(cases, data, cache, listed)
        name_twins(results)
        judge_labels(results)
        forget_changed(results, cache)
        refuse_damaged(results, cache, skip_invalid=data.skip_invalid)
        records = [record for record in results if not errors(findings_of(record))]
        if data.labels is not None:
            refuse_absent_ids(records, data.ids)
        index: Index = {
            "format": FORMAT,
            "settings": cache_settings(data),
            "data_hash": digest([record["key"] for record in records]),
            "cases": {record["id"]: record for record in records},
        }
        volumes = {record["id"]: record["statistics"]["tumor_ml"] for record in records}
        settle_split(cache / "splits.json", split, volumes, map_patients(cases, listed))
        write_json(cache / "index.json", index)
        write_json(cache / "fingerprint.json", fingerprint(records))
        return index


def refuse_other_ids(told: Mapping[str, Sequence[int]] | None) -> None:
    """Refuse a data set whose ids mean something else than ours, where `data.labels` does not say so.

    Raises:
        KitsError: the text gives the `data.labels` to ask for.
    """
    if told and any(number != label for number, label in classes_by_id(told).items()):
        add = f"add 'data.labels={text(dict(told))}'"
        raise KitsError(f"data.labels: no value given, and the data set has other ids than KiTS; {add}")


def refuse_absent_ids(records: list[CaseRecord], classes: Mapping[int, int]) -> None:
    """Refuse a map of label ids that names one which no case has: it is of another data set, or mistyped.

    Raises:
        KitsError: the text names the id.
    """
    seen = {number for record in records for number in record["label_ids"]}
    if absent := sorted(set(classes) - {BACKGROUND} - seen):
        there = ", ".join(map(str, sorted(seen - {BACKGROUND})))
        raise KitsError(f"data.labels: no label map has the id {absent[0]}; the ids in {len(records)} cases are {there}")


def refuse_damaged(results: list[CaseRecord], cache: Path, *, skip_invalid: bool) -> None:
    """Show and write the table of findings.

    Raises:
        KitsError: a case has an error and may not be left out.
    """
    findings = [finding for result in results for finding in findings_of(result)]
    write_findings(cache / "findings.csv", findings)
    if findings:
        tqdm.write(table(findings, cache / "findings.csv"))
    found = errors(findings)
    damaged = {finding.case for finding in found}
    if damaged and not skip_invalid:
        raise KitsError(
            f"{len(damaged)} of {len(results)} cases are damaged, the first: {found[0]} (all in {cache / 'findings.csv'});"
            " mend them, name them in data.exclude, or leave them out with data.skip_invalid=true"
        )


def forget_changed(results: list[CaseRecord], cache: Path) -> None:
    """Remove an earlier run's index where one of its cases has changed or is damaged now.

    Nobody shall train on what it was. If this run is refused for another reason, the index stays as sound as it was.
    """
    index = read_object(cache / "index.json", {"cases": {str: {"key": str}}})
    earlier = index["cases"] if index else {}
    for result in results:
        if result["id"] in earlier and (errors(findings_of(result)) or earlier[result["id"]]["key"] != result["key"]):
            (cache / "index.json").unlink()
            return


def name_twins(results: list[CaseRecord]) -> None:
    """Add an error to every case whose image is another's, byte for byte: it would train and validate."""
    first: dict[str, str] = {}
    for result in results:
        twin = first.setdefault(result["image_sha256"], result["id"]) if "image_sha256" in result else result["id"]
        if twin != result["id"]:
            remedy = "find its own image, or name one of the two in data.exclude"
            result["findings"].append(
                Finding(result["id"], ERROR, f"its image is that of {twin}, byte for byte", remedy).to_dict()
            )


def judge_labels(results: list[CaseRecord]) -> None:
    """Add what all label maps together say against the data set's classes to the cases that show it."""
    found = judge_classes([result.pop("labelled") for result in results if "labelled" in result])
    for result in results:
        result["findings"] += [finding.to_dict() for finding in found if finding.case == result["id"]]


def findings_of(result: CaseRecord) -> list[Finding]:
    """Return the rows that a case adds to the table."""
    return [Finding(**finding) for finding in result["findings"]]


def map_patients(cases: Iterable[Case], listed: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Tell whose each case is, by its id, where the layout or the record of a painted scan says so."""
    painted = {case: record.get("painted") for case, record in listed.items()}
    scans = {case: how.get("scan") for case, how in painted.items() if isinstance(how, dict)}
    known = {case.id: case.patient or scans.get(case.id) for case in cases}
    return {case: patient for case, patient in known.items() if patient}


def prepare_all(cases: list[Case], data: Data, cache: Path, listed: Mapping[str, Mapping[str, object]]) -> list[CaseRecord]:
    """Prepare all cases, and return what `prepare_case` says of each by id."""
    sizes = announce_size(cases, data, cache)
    # The largest first: the last to finish should be short, or the other processes wait for it.
    order = sorted(cases, key=lambda case: -sizes[case.id])
    calls = [(case, data, cache, listed.get(case.id)) for case in order]
    results = map_cases(prepare_case, calls, workers=data.workers, desc="prepare")
    return sorted((result for result in results if isinstance(result, dict)), key=lambda result: str(result["id"]))


def fingerprint(records: list[CaseRecord]) -> dict[str, Any]:
    """Sum the cases up, per case and overall: shape, spacing (mm), mL, HU percentiles, ROIs (mm)."""
    per_case = {
        record["id"]: {"shape": record["shape"], "spacing": record["spacing"], **record["statistics"]} for record in records
    }
    cases = list(per_case.values())

    rois = [roi for case in cases for roi in case["roi_mm"]]
    names = [key.removesuffix("_ml") for key in cases[0] if key.endswith("_ml")]
    overall: dict[str, Any] = {
        "cases": len(cases),
        "median_spacing": [median(case["spacing"][axis] for case in cases) for axis in range(3)],
        "median_shape": [median(case["shape"][axis] for case in cases) for axis in range(3)],
        "median_roi_share": median(case["roi_share"] for case in cases),
        "largest_roi_share": max(case["roi_share"] for case in cases),
        "median_roi_mm": [median(roi[axis] for roi in rois) for axis in range(3)],
        "largest_roi_mm": [max(roi[axis] for roi in rois) for axis in range(3)],
        "cases_by_rois": count_values(case["rois"] for case in cases),
        "cases_by_kidneys": count_values(case["kidneys"] for case in cases),
        "cases_by_tumor_pieces": count_values(case["tumor_pieces"] for case in cases),
    }
    for name in names:  # least, median and most of the cases
        volumes = [case[f"{name}_ml"] for case in cases]
        overall[f"{name}_ml"] = [min(volumes), median(volumes), max(volumes)]
        with_it = [case for case in cases if f"{name}_hu" in case]
        if with_it:
            overall[f"{name}_hu"] = [median(case[f"{name}_hu"][place] for case in with_it) for place in range(3)]
        overall[f"least_{name}_in_rois"] = min(case.get(f"{name}_in_rois", 1.0) for case in cases)
    return {"overall": overall, "cases": per_case}


def count_values(values: Iterable[int]) -> dict[str, int]:
    """Count how many times each value occurs, for JSON."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
