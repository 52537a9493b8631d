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
from kits.data.index import LABEL_NAME, RECORDS_NAME, claim_cases
from kits.data.validate import errors
from kits.io import read_labels, write_json
from kits.painter.kidney import Cyst
from kits.painter.painting import paint
from kits.painter.real_cases import RealPlan, kits19_grid, real_plans, write_painted, write_real_case
from kits.painter.shapes import draw_labels, label_cysts
from kits.volume import Grid, Volume

# Label maps that are read beforehand to see what their labels mean.
LOOKED_AT = 6


@dataclass(frozen=True)
class Plan:
    """One case to write: its id, the label map that it is painted on or None, and the options."""

    case_id: str
    source: Path | None
    options: Phantom


def write_dataset(options: Phantom) -> list[str]:
    """Write `case_XXXXX/{imaging,segmentation}.nii.gz` and `kits.json` under `output`.

    A case depends on `seed` and its id alone, not on the number of cases or workers. Cases appear complete or not at all.

    Args:
        options: of conf/phantom.yaml, which says what each is for.

    Returns:
        The case ids.

    Raises:
        KitsError: no label maps, a damaged one, or a folder that cannot be written or holds other cases of these names.
    """
    output = Path(options.output)
    if options.labels is not None:
        paths = find_label_maps(Path(options.labels))[: options.cases]
        refuse_other_labels(paths)
        plans = [Plan(path.parent.name, path, options) for path in paths]
    else:
        plans = [Plan(f"case_{number:05d}", None, options) for number in range(options.cases or 0)]
    real = real_plans(options, first=len(plans)) if options.images is not None else []
    whole: list[Plan | RealPlan] = [*plans, *real]
    others = claim_cases(output, [plan.case_id for plan in whole], "painted")
    # Nothing is caught: the first case that cannot be written ends the whole.
    records: list[Any] = map_cases(write_any, [(plan,) for plan in whole], workers=options.workers, desc="phantom")
    # `painted` says how a case was made. Of the clinical fields only case id and spacing mean anything here.
    write_json(output / RECORDS_NAME, sorted([*others, *records], key=lambda record: str(record["case_id"])))
    return [record["case_id"] for record in records]


def write_any(plan: Plan | RealPlan) -> dict[str, Any]:
    """Write the case of a plan, whatever it is made of; returns its entry in kits.json."""
    return write_case(plan) if isinstance(plan, Plan) else write_real_case(plan)


def find_label_maps(folder: Path) -> list[Path]:
    """Return the label maps of a tree in the order of their names."""
    if not folder.is_dir():
        raise KitsError(f"labels={folder}: no such folder; give one that holds case_*/{LABEL_NAME}")
    found = sorted(folder.glob(f"case_*/{LABEL_NAME}"))
    if not found:
        raise KitsError(f"labels={folder}: no case_*/{LABEL_NAME} in it; give a folder in KiTS19's layout")
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
    options = plan.options
    rng = np.random.default_rng([options.seed, crc32(plan.case_id.encode())])
    cysts: list[Cyst] | None = None
    if plan.source is None:
        z, xy = round(float(rng.uniform(*options.spacing_z)), 2), round(float(rng.uniform(*options.spacing_xy)), 4)
        labels, cysts = draw_labels(rng, z, xy, options.matrix, options.tumor_radius, options.margin_mm)
        grid = kits19_grid(labels.shape, (z, xy, xy))
        variety = options.variety.drawn
    else:
        volume = read_labels(plan.source, allowed=(BACKGROUND, KIDNEY, TUMOR))
        labels, grid = (volume.array, volume.grid) if options.thin_mm is None else thin_labels(volume, options.thin_mm)
        variety = options.variety.labels
    # Painted through a view of the array in the file's own order: nothing of this size is copied for orientation.
    stored = np.empty(grid.size[::-1], np.int16)
    flips = tuple(slice(None, None, -1 if flip else 1) for flip in grid.flips)
    out = stored.transpose(grid.axes)[flips]
    phase = paint(
        labels,
        grid.spacing_zyx,
        rng,
        cysts=cysts,
        phases=options.phases.model_dump(),
        variety=variety,
        decoys=options.decoys,
        out=out,
    )
    if cysts and options.real.cyst_label != KIDNEY:  # only now: to the painter they are kidney
        label_cysts(labels, cysts, grid.spacing_zyx, options.real.cyst_label)
    painted = {"phase": phase, "variety": variety}
    return write_painted(Path(options.output), plan.case_id, labels, out, grid, painted)


def thin_labels(volume: Volume, thin_mm: tuple[float, float]) -> tuple[NDArray[np.uint8], Grid]:
    """Thin a label map to about these mm, every n-th slice and pixel, and return its KiTS19 grid."""
    wanted = (thin_mm[0], thin_mm[1], thin_mm[1])
    strides = [max(1, round(mm / step)) for mm, step in zip(wanted, volume.spacing, strict=True)]
    labels = np.ascontiguousarray(volume.array[tuple(slice(stride // 2, None, stride) for stride in strides)])
    z, y, x = (step * stride for step, stride in zip(volume.spacing, strides, strict=True))
    return labels, kits19_grid(labels.shape, (z, y, x))
