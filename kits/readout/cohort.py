"""The read-out of many label maps, a JSON file a case, so that a run can be resumed; and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from kits.core.errors import KitsError
from kits.core.labels import CLASSES, TUMOR
from kits.core.plain_files import csv_text, read_object
from kits.data.validate import ABSURD_SPACING_MM
from kits.io import write_json, write_text
from kits.prediction.dicom_sr import SR_NAME, ReportedRegion, write_dicom_sr
from kits.readout.definitions import KIDNEY_COLUMNS, TUMOR_COLUMNS, column, definitions
from kits.readout.intervals import with_intervals
from kits.readout.kidney_measurement import read_out
from kits.readout.maps import OWN_IDS, LabelMap, on_grid_of
from kits.readout.readings import CaseReading
from kits.volume import Volume, stored_order

# Raised when a definition changes, so that older results are measured again.
EDITION = 5
# The key of the read-out in a report of kits.predict.
READOUT = "readout"


def measure_map(
    job: LabelMap,
    folder: Path,
    pages: Path | None = None,
    ids: Mapping[str, Sequence[int]] = OWN_IDS,
    reports: Path | None = None,
) -> dict[str, Any]:
    """Measure one label map, write its JSON and its page, and return the content of the JSON.

    They go into `folder` and `pages`.

    Args:
        ids: by class the label ids that stand for it.
        reports: where a DICOM report of it goes, with the segmentation that it refers to; only if its CT is a DICOM series.

    Raises:
        KitsError: a file is damaged, or the CT has another grid.
    """
    own, notes = job.read(ids)
    volume = None if job.scan is None else job.scan.read()
    reading, labels = measure(own, volume, str(job.path), notes)
    if job.members or job.probabilities is not None:
        others = (Volume(other, own.spacing, own.grid) for other in job.others(own.grid, ids))
        beside = (other.array if volume is None else on_grid_of(volume, other, str(job.path))[0] for other in others)
        reading = with_intervals(reading, labels.spacing, beside)
    if reports is not None:
        reading = reported(reading, labels, job, reports / job.name)
    content = {
        "case": job.name,
        "source": source_of(job, ids),
        "spacing_mm": list(labels.spacing),
        **rounded(reading.to_dict()),
    }
    if pages is not None:
        from kits.readout.sheet import sheet

        hu = None if volume is None else volume.array
        write_text(pages / f"{job.name}.html", sheet(job.name, reading, labels.spacing, hu))
    write_json(folder / f"{job.name}.json", content)
    return content


def measure(labels: Volume, volume: Volume | None, name: str, notes: Sequence[str] = ()) -> tuple[CaseReading, Volume]:
    """Measure a label map (z, y, x), with the HU of its CT where given; return the reading and map.

    The map is on the CT's grid.

    Args:
        name: for messages.
        notes: flags that are known already.

    Raises:
        KitsError: it is one slice, its spacing is no CT's, it holds other labels, or it is not of this CT.
    """
    flags = list(notes)
    if volume is not None:
        array, told = on_grid_of(volume, labels, name)
        labels, flags = Volume(array, volume.spacing, volume.grid), [*flags, *told]
    if min(labels.array.shape) < 2:
        raise KitsError(f"{name}: {labels.array.shape} voxels (z, y, x): is one slice; give a 3D label map")
    low, high = ABSURD_SPACING_MM
    if not all(low <= step <= high for step in labels.spacing):
        raise KitsError(f"{name}: spacing {labels.spacing} mm is not that of a CT; mend the header")
    if labels.spacing == (1.0, 1.0, 1.0):
        flags.append("spacing 1 x 1 x 1 mm: what a header says that has lost it; if it has, every number is wrong")
    if labels.array.max(initial=0) >= len(CLASSES) or labels.array.min(initial=0) < 0:
        known = ", ".join(f"{number} {text}" for number, text in enumerate(CLASSES))
        raise KitsError(f"{name}: holds the label {labels.array.max()}; known are {known}")
    array = labels.array.astype(np.uint8, copy=False)
    reading = read_out(array, labels.spacing, None if volume is None else volume.array)
    return replace(reading, flags=[*flags, *reading.flags]), Volume(array, labels.spacing, labels.grid)


def reported(reading: CaseReading, labels: Volume, job: LabelMap, folder: Path) -> CaseReading:
    """Write the DICOM report of a case, or say in the reading why there is none."""
    if job.scan is None or not job.scan.files:
        return replace(reading, flags=[*reading.flags, "no DICOM series, so dicom_sr=true writes nothing of it"])
    if not reading.shapes:
        return replace(reading, flags=[*reading.flags, "nothing to report, so dicom_sr=true writes nothing of it"])
    numbers = np.zeros(labels.array.shape, np.uint16)
    findings = []
    kidneys = {kidney.side: kidney for kidney in reading.kidneys}
    tumors = iter(reading.tumors)
    for shapes in reading.shapes:
        region, kidney = shapes.region, kidneys[shapes.region.side]
        part = numbers[region.window]
        solid = (region.labels > 0) & (region.labels != TUMOR)
        if solid.any():
            values = {"volume_ml": (kidney.parenchyma_ml or 0) + (kidney.cyst_ml or 0), "length_mm": kidney.length_mm}
            findings.append(ReportedRegion(f"{region.side} kidney without tumors", "kidney", region.side, values))
            part[solid] = len(findings)
        for number in range(1, region.tumor_count + 1):
            tumor = next(tumors)
            findings.append(ReportedRegion(f"tumor {tumor.id}", "tumor", region.side, asdict(tumor)))
            part[region.tumors == number] = len(findings)
    write_dicom_sr(folder, job.scan.files, stored_order(numbers, labels.grid), findings)
    return reading


def measure_volume(labels: Volume | np.ndarray, volume: Volume | None = None) -> CaseReading:
    """Measure a label map, or an array of labels on the grid of `volume`.

    `kits.measure` is this function.
    """
    if isinstance(labels, np.ndarray):
        if volume is None:
            raise KitsError("measure: an array of labels has no spacing; give the volume that it is of too")
        if labels.shape != volume.array.shape:
            raise KitsError(f"measure: labels of {labels.shape} voxels (z, y, x), but the volume has {volume.array.shape}")
        labels = Volume(labels, volume.spacing, volume.grid)
    return measure(labels, volume, "measure")[0]


def readout_of(labels: np.ndarray, volume: Volume) -> dict[str, Any]:
    """Measure a prediction, in the form of its report."""
    content: dict[str, Any] = rounded(measure_volume(labels, volume).to_dict())
    return content


def source_of(job: LabelMap, ids: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Describe what a result depends on: the files, the ids of their labels, and the definitions."""
    return {"edition": EDITION, "ids": {name: list(numbers) for name, numbers in ids.items()}, **job.identity()}


def finished(
    job: LabelMap,
    folder: Path,
    pages: Path | None = None,
    ids: Mapping[str, Sequence[int]] = OWN_IDS,
    reports: Path | None = None,
) -> dict[str, Any] | None:
    """Read what an earlier run measured of this very map.

    None where it has to be measured, or a wanted output is missing.
    """
    content = read_object(folder / f"{job.name}.json")
    wanted = [] if pages is None else [pages / f"{job.name}.html"]
    if reports is not None and job.scan is not None and job.scan.files and content and content.get("tumors"):
        wanted.append(reports / job.name / SR_NAME)
    if content is None or content.get("source") != source_of(job, ids) or not all(path.is_file() for path in wanted):
        return None
    return content


def write_tables(found: Sequence[Mapping[str, Any]], failed: Mapping[str, str], output: Path) -> None:
    """Write `measurements.csv` (a row a tumor), `kidneys.csv` (a row a side) and `measurements.json`.

    The latter with the definitions.
    """
    tables = {"measurements.csv": ("tumors", TUMOR_COLUMNS), "kidneys.csv": ("kidneys", KIDNEY_COLUMNS)}
    for name, (part, columns) in tables.items():
        rows = [[case["case"], *(column(entry, key) for key in columns)] for case in found for entry in case[part]]
        write_text(output / name, csv_text(["case", *columns], rows))
    content = {"definitions": definitions(), "cases": list(found), "failed": dict(failed)}
    write_json(output / "measurements.json", content)


def rounded(value: Any) -> Any:
    """Round the numbers in a plain container to four decimals.

    More is noise, and less would show in sums.
    """
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
