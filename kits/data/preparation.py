"""From a KiTS tree to a cache that training reads: validate, split, store, describe."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from kits.data.cache import digest, prepare_case
from kits.data.index import Case, find_cases
from kits.data.splits import check_kept, settle_split
from kits.errors import KitsError
from kits.io import write_json
from kits.parallel import map_cases


def prepare(data: dict[str, Any]) -> dict[str, Any]:
    """Validate and cache every case of `data.root`, and write `index.json`, `splits.json` and `fingerprint.json`.

    Args:
        data: the configuration group `data`, plain.

    Returns:
        The index: settings, data hash, one record a case.

    Raises:
        KitsError: the root has no cases, cases are damaged and `data.skip_invalid` is false, or `splits.json`
            holds another split.
    """
    cases = find_cases(Path(data["root"]), data["exclude"], data["label_name"])
    cache = Path(data["cache"])
    settings = {key: data[key] for key in ("coarse_size", "roi_rule", "classes")}
    check_kept(cache / "splits.json", data["split"])
    records, damaged = prepare_all(cases, settings, cache, data["workers"])
    for text in damaged:
        tqdm.write(f"damaged: {text}")
    if damaged and not data["skip_invalid"]:
        raise KitsError(
            f"{len(damaged)} of {len(cases)} cases are damaged, the first: {damaged[0]};"
            " mend them, name them in data.exclude, or leave them out with data.skip_invalid=true"
        )
    index = {
        "settings": settings,
        "data_hash": digest([record["key"] for record in records]),
        "cases": {record["id"]: record for record in records},
    }
    tumor_ml = {record["id"]: record["statistics"]["tumor_ml"] for record in records}
    settle_split(cache / "splits.json", data["split"], tumor_ml)
    write_json(cache / "index.json", index)
    write_json(cache / "fingerprint.json", fingerprint(records))
    return index


def prepare_all(cases: list[Case], settings: dict[str, Any], cache: Path, workers: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of the sound cases by id, and what is wrong with each of the others."""
    calls = [(case, settings, cache) for case in cases]
    results = map_cases(prepare_case, calls, workers=workers, desc="prepare", catch=(KitsError,))
    records = [result for result in results if not isinstance(result, Exception)]
    return records, [str(result) for result in results if isinstance(result, Exception)]


def fingerprint(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Per case and overall: shape, spacing (mm), volumes (mL), HU percentiles, what the ROI rule keeps."""
    per_case = {
        record["id"]: {"shape": record["shape"], "spacing": record["spacing"], **record["statistics"]} for record in records
    }
    shares = [case["roi_share"] for case in per_case.values()]
    tumors = [case["tumor_ml"] for case in per_case.values()]
    overall = {
        "cases": len(per_case),
        "median_spacing": [median(case["spacing"][axis] for case in per_case.values()) for axis in range(3)],
        "median_shape": [median(case["shape"][axis] for case in per_case.values()) for axis in range(3)],
        "median_roi_share": median(shares),
        "largest_roi_share": max(shares),
        "tumor_ml": [min(tumors), max(tumors)],
        "least_tumor_in_rois": min(case.get("tumor_in_rois", 1.0) for case in per_case.values()),
        "least_kidney_in_rois": min(case.get("kidney_in_rois", 1.0) for case in per_case.values()),
    }
    return {"overall": overall, "cases": per_case}
