"""A stand-in for KiTS19's imaging: painted CT with its label maps, written in KiTS19's own layout.

By itself it draws kidneys and tumors; `labels=DIR` paints around and inside the label maps of that folder, `images=DIR` sets
tumors into the kidneys of its CT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from kits.config.schema.phantoms import Phantom
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, KIDNEY, TUMOR
from kits.core.parallel import map_cases
from kits.data.classes import judge_classes, measure_classes
from kits.data.findings import errors
from kits.data.index import RECORDS_NAME
from kits.io import make_folder, read_labels, whole_folder, write_json, write_labels, write_volume
from kits.painter.frame import KITS19_DIRECTION
from kits.painter.kidney import Cyst
from kits.painter.painting import paint
from kits.painter.real_cases import RealPlan, real_plans, write_real_case
from kits.painter.shapes import draw_labels
from kits.volume import Grid, Volume

# Label maps that are read beforehand to see what their labels mean.
LOOKED_AT = 6


@dataclass(frozen=True)
class Plan:
    """One case to write: its id, where, its seed, and the source label map or the ranges to draw from."""

    case_id: str
    output: Path
    seed: int
    source: Path | None
    spacing_z: tuple[float, float]
    spacing_xy: tuple[float, float]
    matrix: int
    tumor_radius: tuple[float, float]
    margin_mm: tuple[float, float]
    phases: dict[str, float]
    variety: float
    decoys: float
    thin_mm: tuple[float, float] | None


def write_dataset(options: Phantom) -> list[str]:
    """Write `case_XXXXX/{imaging,segmentation}.nii.gz` and `kits.json` under `output`.

    A case depends on `seed` and its id alone, not on the number of cases or workers. Cases appear complete or not at all.

    Args:
        options: of conf/phantom.yaml, which says what each is for.

    Returns:
        The case ids.

    Raises:
        KitsError: no label maps, a damaged one, or a folder that cannot be written.
    """
    output = Path(options.output)
    if options.labels is not None:
        sources: list[tuple[str, Path | None]] = [
            (path.parent.name, path) for path in find_label_maps(Path(options.labels))[: options.cases]
        ]
    else:
        sources = [(f"case_{number:05d}", None) for number in range(options.cases or 0)]
    amount = options.variety.drawn if options.labels is None else options.variety.labels
    ranges = (options.spacing_z, options.spacing_xy, options.matrix, options.tumor_radius, options.margin_mm)
    phases = options.phases.model_dump()
    plans = [
        Plan(case_id, output, options.seed, source, *ranges, phases, amount, options.decoys, options.thin_mm)
        for case_id, source in sources
    ]
    refuse_other_labels([path for _, path in sources if path is not None])
    real = real_plans(options, first=len(plans)) if options.images is not None else []
    make_folder(output, "output")
    # Nothing is caught: the first case that cannot be written ends the whole.
    calls = [*((plan,) for plan in plans), *((plan,) for plan in real)]
    records: list[Any] = map_cases(write_any, calls, workers=options.workers, desc="phantom")
    write_record(output, records)
    return [record["case_id"] for record in records]


def write_any(plan: Plan | RealPlan) -> dict[str, Any]:
    """Write the case of a plan, whatever it is made of; returns its entry in kits.json."""
    return write_case(plan) if isinstance(plan, Plan) else write_real_case(plan)


def find_label_maps(folder: Path) -> list[Path]:
    """Return `case_*/segmentation.nii.gz` in the order of their names."""
    if not folder.is_dir():
        raise KitsError(f"labels={folder}: no such folder; give one that holds case_*/segmentation.nii.gz")
    found = sorted(folder.glob("case_*/segmentation.nii.gz"))
    if not found:
        raise KitsError(f"labels={folder}: no case_*/segmentation.nii.gz in it; give a folder in KiTS19's layout")
    return found


def refuse_other_labels(paths: Sequence[Path]) -> None:
    """Refuse label maps of which a few from all over the list are not kidney and tumor."""
    seen = []
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        volume = read_labels(path, allowed=(BACKGROUND, KIDNEY, TUMOR))
        seen.append(measure_classes(path.parent.name, path, volume.array, volume.spacing))
    if found := errors(judge_classes([one for one in seen if any(one.volumes_ml)])):
        raise KitsError(f"labels: {found[0].finding}; {found[0].remedy}")


def write_case(plan: Plan) -> dict[str, Any]:
    """Draw or read the labels, paint the CT and write both; returns the case's entry in kits.json."""
    rng = np.random.default_rng([plan.seed, crc32(plan.case_id.encode())])
    cysts: list[Cyst] | None = None
    if plan.source is None:
        labels, cysts, grid = draw_case(rng, plan)
    else:
        volume = read_labels(plan.source, allowed=(BACKGROUND, KIDNEY, TUMOR))
        labels, grid = (volume.array, volume.grid) if plan.thin_mm is None else thin(volume, plan.thin_mm)
    # Painted through a view of the array in the file's own order: nothing of this size is copied for orientation.
    stored = np.empty(grid.size[::-1], np.int16)
    flips = tuple(slice(None, None, -1 if flip else 1) for flip in grid.flips)
    out = stored.transpose(grid.axes)[flips]
    phase = paint(
        labels, grid.spacing_zyx, rng, cysts=cysts, phases=plan.phases, variety=plan.variety, decoys=plan.decoys, out=out
    )

    with whole_folder(plan.output / plan.case_id) as folder:
        write_labels(folder / "segmentation.nii.gz", labels, grid)
        write_volume(folder / "imaging.nii.gz", out, grid)
    z, y, x = grid.spacing_zyx
    record = {"case_id": plan.case_id, "voxel_spacing": {"x_spacing": x, "y_spacing": y, "z_spacing": z}}
    return {**record, "painted": {"phase": phase, "variety": plan.variety}}


def draw_case(rng: np.random.Generator, plan: Plan) -> tuple[NDArray[np.uint8], list[Cyst], Grid]:
    """Draw labels (z, y, x) in LPS, cysts and geometry of a case of the phantom's own."""
    spacing_z, spacing_xy = round(float(rng.uniform(*plan.spacing_z)), 2), round(float(rng.uniform(*plan.spacing_xy)), 4)
    labels, cysts = draw_labels(rng, spacing_z, spacing_xy, plan.matrix, plan.tumor_radius, plan.margin_mm)
    size = (len(labels), plan.matrix, plan.matrix)
    return labels, cysts, Grid(size, (spacing_z, spacing_xy, spacing_xy), (0.0, 0.0, 0.0), KITS19_DIRECTION)


def thin(volume: Volume, thin_mm: tuple[float, float]) -> tuple[NDArray[np.uint8], Grid]:
    """Thin a label map to about these mm, and return its grid in KiTS19's axes.

    Every n-th slice, row and column stays.
    """
    wanted = (thin_mm[0], thin_mm[1], thin_mm[1])
    strides = [max(1, round(mm / step)) for mm, step in zip(wanted, volume.spacing, strict=True)]
    labels = np.ascontiguousarray(volume.array[tuple(slice(stride // 2, None, stride) for stride in strides)])
    z, y, x = (step * stride for step, stride in zip(volume.spacing, strides, strict=True))
    depth, height, width = labels.shape
    return labels, Grid((depth, height, width), (z, y, x), (0.0, 0.0, 0.0), KITS19_DIRECTION)


def write_record(output: Path, records: list[dict[str, Any]]) -> None:
    """Write kits.json; `painted` says how a case was made.

    Of the clinical fields only case id and spacing mean anything here.
    """
    write_json(output / RECORDS_NAME, records)
