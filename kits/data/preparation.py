"""The way from a KiTS tree to a cache that training reads: validate, split, store, describe."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from kits.config.schema.base import text
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, classes_by_id
from kits.core.locking import sole_user
from kits.core.parallel import map_cases
from kits.core.plain_files import csv_text, read_object
from kits.data.arrays import POINTS
from kits.data.cache import FORMAT, cache_settings, digest, prepare_case
from kits.data.cached_case import CaseRecord, read_record
from kits.data.classes import judge_classes
from kits.data.index import Case
from kits.data.layouts import find_data_set, label_ids
from kits.data.prepared import Index
from kits.data.splits import check_kept, settle_split
from kits.data.validate import COLUMNS, ERROR, Finding, errors, listed_spacing, table
from kits.io import read_geometry, write_json, write_text
from kits.io.tree import summary

# Headers of five .npy files and a record.
OVERHEAD = 16_384


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
    told = label_ids(data, found) if data.labels is None else None
    if told and any(number != label for number, label in classes_by_id(told).items()):
        add = f"add 'data.labels={text(told)}'"
        raise KitsError(f"data.labels: no value given, and the data set has other ids than KiTS; {add}")
    for line in summary(found.left_out):
        tqdm.write(f"left out: {line}")
    cases = list(found.cases.values())
    split = check_kept(cache / "splits.json", data.split)
    with held_cache(cache):
        listed = listed_spacing(root)
        sizes = announce_size(cases, data, cache)
        # The largest first: the last to finish should be short, or the other processes wait for it.
        calls = [(case, data, cache, listed.get(case.id)) for case in sorted(cases, key=lambda case: -sizes[case.id])]
        done: list[Any] = map_cases(prepare_case, calls, workers=data.workers, desc="prepare")
        results: list[CaseRecord] = sorted(done, key=lambda result: result["id"])
        name_twins(results)
        against = judge_classes([result.pop("labelled") for result in results if "labelled" in result])
        for result in results:
            result["findings"] += [asdict(finding) for finding in against if finding.case == result["id"]]
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
        # Whose a case is, where the layout or the record of a painted scan says so.
        painted = {case: record.get("painted") for case, record in listed.items()}
        scans = {case: how.get("scan") for case, how in painted.items() if isinstance(how, dict)}
        patients = {case.id: patient for case in cases if (patient := case.patient or scans.get(case.id))}
        settle_split(cache / "splits.json", split, volumes, patients)
        write_json(cache / "index.json", index)
        write_json(cache / "fingerprint.json", fingerprint(records))
        return index


def refuse_absent_ids(records: list[CaseRecord], classes: Mapping[int, int]) -> None:
    """Refuse a map of label ids that names one which no case has: it is of another data set, or mistyped."""
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
    rows = [(row.case, row.severity, row.finding, row.remedy) for row in findings]
    write_text(cache / "findings.csv", csv_text(COLUMNS, rows))
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
            finding = Finding(result["id"], ERROR, f"its image is that of {twin}, byte for byte", remedy)
            result["findings"].append(asdict(finding))


def findings_of(result: CaseRecord) -> list[Finding]:
    """Return the rows that a case adds to the table."""
    return [Finding(**finding) for finding in result["findings"]]


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


@contextmanager
def held_cache(cache: Path) -> Iterator[None]:
    """Hold the cache for one prepare at a time, and remove cases that a killed run left half-written.

    Raises:
        KitsError: it cannot be made, or another prepare works in it.
    """
    with sole_user(cache, lock=cache / ".lock", key="data.cache", work="kits.prepare"):
        (cache / "cases").mkdir(exist_ok=True)
        for partial in (cache / "cases").glob(".*"):
            shutil.rmtree(partial, ignore_errors=True)
        yield


def announce_size(cases: Sequence[Case], data: Data, cache: Path) -> dict[str, int]:
    """Print how much will be written at most.

    Returns:
        The bytes of each case by id.

    Raises:
        KitsError: more than the disk has room for.
    """
    made_with, sizes, missing = digest([FORMAT, cache_settings(data)]), {}, []
    for case in cases:
        try:
            grid = read_geometry(case.image)
            # int16 and uint8, on its own grid and on the coarse one.
            voxels = math.prod(grid.size) + grid.shape_zyx[0] * data.coarse_size**2
            sizes[case.id] = voxels * 3 + POINTS * 12 + OVERHEAD
        except Exception:  # validation names it
            sizes[case.id] = 0
        # A file that has changed since is noticed only when it is read.
        records = (read_record(folder) for folder in (cache / "cases").glob(f"{case.id}-*"))
        if not any(record is not None and record.get("made_with") == made_with for record in records):
            missing.append(case.id)
    wanted, free = sum(sizes[case] for case in missing), shutil.disk_usage(cache).free
    print(
        f"{len(cases)} cases take up to {sum(sizes.values()) / 1e9:.1f} GB in {cache}; {len(missing)} are to be written:"
        f" up to {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
        flush=True,
    )
    if wanted > free:
        raise KitsError(
            f"data.cache={cache}: up to {wanted / 1e9:.1f} GB are to be written but the disk has {free / 1e9:.1f} GB free;"
            " free space, choose another data.cache, or name cases in data.exclude"
        )
    return sizes
