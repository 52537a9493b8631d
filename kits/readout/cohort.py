"""The label maps at a path measured one by one: a JSON file a case, so that what is done stays done, and the tables of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.errors import KitsError
from kits.io import read_labels, write_json, write_text
from kits.labels import CLASSES
from kits.plain_files import csv_text, read_object
from kits.readout.definitions import KIDNEY_COLUMNS, TUMOR_COLUMNS, column, definitions
from kits.readout.readings import read_out

# Raised when a definition changes, so that older results are measured again.
EDITION = 1


@dataclass(frozen=True)
class LabelMap:
    """One label map to measure, and its CT where there is one."""

    name: str
    path: Path
    scan: Any = None  # kits.prediction.inputs.Scan

    def identity(self) -> dict[str, Any]:
        """What tells a map that was changed from one that was not."""
        stat = self.path.stat()
        image = None if self.scan is None else self.scan.identity()
        return {"edition": EDITION, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "image": image}


def measure_map(job: LabelMap, folder: Path, pages: Path | None = None) -> dict[str, Any]:
    """Measure one label map, write its JSON into `folder` and its page into `pages`, and return the first.

    Raises:
        KitsError: a file is damaged, or the CT has another grid.
    """
    labels = read_labels(job.path, allowed=range(len(CLASSES)))
    if min(labels.array.shape) < 2:
        raise KitsError(f"{job.path}: {labels.array.shape} voxels (z, y, x): is one slice; give a 3D label map")
    hu = None
    if job.scan is not None:
        volume = job.scan.read()
        if volume.array.shape != labels.array.shape:
            raise KitsError(
                f"{job.path}: {labels.array.shape} voxels (z, y, x), but its CT {job.scan.path} has {volume.array.shape};"
                " the two are not one case"
            )
        hu = volume.array
    reading = read_out(labels.array, labels.spacing, hu)
    content = {"case": job.name, "source": job.identity(), "spacing_mm": list(labels.spacing), **rounded(reading.to_dict())}
    if pages is not None:
        from kits.readout.sheet import sheet

        write_text(pages / f"{job.name}.html", sheet(job.name, reading, labels.spacing, hu))
    write_json(folder / f"{job.name}.json", content)
    return content


def finished(job: LabelMap, folder: Path) -> dict[str, Any] | None:
    """What an earlier run measured of this very map; None where it has to be measured."""
    content = read_object(folder / f"{job.name}.json")
    return content if content is not None and content.get("source") == job.identity() else None


def write_tables(found: Sequence[Mapping[str, Any]], failed: Mapping[str, str], output: Path) -> None:
    """Write `measurements.csv` (a row a tumor), `kidneys.csv` (a row a side) and `measurements.json` with the definitions."""
    tables = {"measurements.csv": ("tumors", TUMOR_COLUMNS), "kidneys.csv": ("kidneys", KIDNEY_COLUMNS)}
    for name, (part, columns) in tables.items():
        rows = [[case["case"], *(column(entry, key) for key in columns)] for case in found for entry in case[part]]
        write_text(output / name, csv_text(["case", *columns], rows))
    content = {"definitions": definitions(), "cases": list(found), "failed": dict(failed)}
    write_json(output / "measurements.json", content)


def rounded(value: Any) -> Any:
    """A plain container with numbers of four decimals: more is noise, and less would show in sums."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
