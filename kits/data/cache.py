"""Each case decoded once: memory-mapped arrays, keyed by what they were made from.

A case's folder holds
    image.npy         int16 (z, y, x) HU at original resolution
    label.npy         uint8 (z, y, x)
    coarse_image.npy  int16 (planes, size, size) HU on the coarse grid
    coarse_label.npy  uint8 (planes, size, size)
    tumor_points.npy  int32 (n, 3) voxels of tumor, to centre patches on
    record.json       spacing, boxes, statistics, warnings, and the size of every file
and appears by one rename when all of it is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kits.config import plain
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, KIDNEY, TUMOR
from kits.data import arrays
from kits.data.cached_case import CaseRecord, read_record
from kits.data.classes import measure_classes
from kits.data.index import Case
from kits.data.validate import (
    ERROR,
    WARNING,
    Finding,
    check_files,
    check_headers,
    check_hu,
    check_kidney_hu,
    check_listed,
    check_order,
    errors,
)
from kits.io import read_labels, read_volume
from kits.volume.rois import Box

T = TypeVar("T")

# Raised whenever the arrays change their meaning, so that an older cache is never read.
FORMAT = 2


def cache_settings(data: Data) -> dict[str, Any]:
    """Return, plain, the settings that arrays are cached with; training refuses others."""
    return {key: plain(getattr(data, key)) for key in ("coarse_size", "coarse_z_mm", "roi_rule", "classes", "labels")}


def file_digest(path: Path) -> str:
    """Compute SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Compute SHA-256 of a plain container."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digests(case: Case) -> list[str]:
    """Compute SHA-256 of the image and of the label map."""
    try:
        return [file_digest(case.image), file_digest(case.label)]
    except OSError as error:
        raise KitsError(f"{error.filename}: cannot be read ({error.strerror}); every case needs both files") from error


def case_key(files: list[str], settings: dict[str, Any]) -> str:
    """Digest what a cached case was made from: both files, the settings and the cache's format."""
    return digest([FORMAT, settings, files])


def prepare_case(case: Case, data: Data, cache: Path, listed: Mapping[str, object] | None = None) -> CaseRecord:
    """Validate a case and write its arrays, unless they are there already.

    Args:
        listed: the case's record in `kits.json`.

    Returns:
        `id`, `findings` and, where none of them is an error, the record of the arrays with `key` and `folder` (in the cache).

    Raises:
        KitsError: the cache cannot be written.
    """
    try:
        findings = check_files(case)
    except OSError as error:
        remedy = "give yourself the right to read it"
        findings = [Finding(case.id, ERROR, f"{error.filename}: cannot be read ({error.strerror})", remedy)]
    record: CaseRecord | None = None
    if not findings:
        try:
            files = file_digests(case)
            key = case_key(files, cache_settings(data))
            folder = cache / "cases" / f"{case.id}-{key[:16]}"
            record = read_record(folder)
            if record is None:
                record, findings = build(case, data, folder)
        except KitsError as error:
            findings = [Finding.from_error(case.id, error)]
        except OSError as error:  # of the cache: what reads the case has caught its own
            raise KitsError(f"data.cache={cache}: cannot write {case.id} ({error}); free space or choose another") from error
        except Exception as error:
            findings = [Finding.unexpected(case.id, "preparing it", error)]
    if record is None:
        return {"id": case.id, "findings": [asdict(finding) for finding in findings]}
    z, y, x = record["spacing"]
    record["findings"] += [asdict(finding) for finding in check_listed(case.id, (z, y, x), listed)]
    labelled = measure_classes(case.id, case.label, np.load(folder / "label.npy", mmap_mode="r"), (z, y, x))
    place = str(folder.relative_to(cache))
    return {"id": case.id, "labelled": labelled, "key": key, "image_sha256": files[0], "folder": place, **record}


def build(case: Case, data: Data, folder: Path) -> tuple[CaseRecord | None, list[Finding]]:
    """Decode a case into a hidden folder, then rename it to `folder`; None and why where it is damaged."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        record, findings = write_case(case, data, partial)
        if record is None:
            return None, findings
        record["findings"] = [asdict(finding) for finding in findings]
        record["files"] = {path.name: path.stat().st_size for path in sorted(partial.glob("*.npy"))}
        (partial / "record.json").write_text(json.dumps(record, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        return record, findings
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_case(case: Case, data: Data, folder: Path) -> tuple[CaseRecord | None, list[Finding]]:
    """Write all arrays of one case, its record, and everything that is odd about it.

    The label map goes first and leaves memory but for its window of labels, so that one volume is held at a time.
    """
    size, z_mm, classes = data.coarse_size, data.coarse_z_mm, data.classes
    findings, unreadable = check_headers(case)
    labels = scan = None
    ids = data.ids if data.labels else None
    seen: set[int] | None = set() if ids else None
    read = partial(read_labels, case.label, ids, allowed=range(len(classes)), seen=seen)
    label = attempt(read, case.id, case.label, unreadable, findings)
    if label is not None:
        labels = arrays.write_labels(label, size, folder, z_mm)
        del label
    image = attempt(lambda: read_volume(case.image), case.id, case.image, unreadable, findings)
    if image is not None:
        fitting = labels if labels is not None and labels.shape == image.array.shape else None
        scan = arrays.write_image(image, fitting, len(classes), size, folder, z_mm)
        del image
        findings += check_hu(case.id, str(case.image), scan.counts)
        findings += check_order(case.id, str(case.image), scan.coarse)
    boxes: list[Box] = []
    if labels is not None:
        least = data.roi_rule.min_voxels
        boxes = arrays.find_boxes(labels, least)
        if not (labels.crop > BACKGROUND).any():
            what = f"{case.label}: no kidney in it (label {KIDNEY})"
            findings.append(Finding(case.id, ERROR, what, "leave the case out with data.exclude"))
        elif not boxes:
            what = f"{case.label}: no kidney region of more than {least} voxels on the {labels.coarse.shape[1]} grid"
            findings.append(Finding(case.id, ERROR, what, "lower data.roi_rule.min_voxels or name the case in data.exclude"))
    if scan is not None and scan.of_label[KIDNEY].any():
        findings += check_kidney_hu(case.id, str(case.label), arrays.percentile(scan.of_label[KIDNEY], 50))
    if labels is None or scan is None or errors(findings):
        return None, findings
    for value in (KIDNEY, TUMOR):
        if not (labels.crop == value).any():
            what = f"{case.label}: no {classes[value]} in it (label {value})"
            findings.append(Finding(case.id, WARNING, what, "look at it: every KiTS case has some"))
    rois = boxes[: data.roi_rule.count]
    np.save(folder / "tumor_points.npy", arrays.tumor_points(labels))
    record: CaseRecord = {
        "made_with": digest([FORMAT, cache_settings(data)]),
        "shape": list(labels.shape),
        "spacing": list(scan.spacing),
        "boxes": [box.to_list() for box in rois],
        "kidney_slices": arrays.kidney_slices(labels.coarse),
        "statistics": arrays.statistics(scan, labels, rois, len(boxes), classes),
        **({} if seen is None else {"label_ids": sorted(seen)}),
    }
    return record, findings


def attempt(read: Callable[[], T], case: str, path: Path, unreadable: set[Path], findings: list[Finding]) -> T | None:
    """Return what `read` reads, or None and a finding where it cannot, whatever it raises."""
    if path in unreadable:
        return None
    try:
        return read()
    except KitsError as error:
        findings.append(Finding.from_error(case, error))
    except Exception as error:
        findings.append(Finding.unexpected(case, f"{path}: reading it", error))
    return None
