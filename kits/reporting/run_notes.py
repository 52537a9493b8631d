"""The notes of the run that made a prediction, and what makes a case doubtful.

`kits.predict` writes the notes beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kits.core.errors import printable
from kits.core.plain_files import misfit, read_object
from kits.reporting.scene import Scene
from kits.volume import bounding_slices, doubts
from kits.volume.parts import middle_of, parts_of
from kits.volume.rois import Box

CORNER = (int, int, int)
# What is read of a case in a run's report.
ENTRY = {"boxes": [(CORNER, CORNER)], "seconds": {str: float}, "warnings": [str]}
# What is read of a tumor in the read-out that `kits.predict measure=true` adds to it.
MAYBE = float | None
TUMOR = {
    "id": str,
    "volume_ml": float,
    "axial_mm": float,
    "exophytic_share": MAYBE,
    "contact_mm2": MAYBE,
    "sinus_mm": MAYBE,
    "c_index": MAYBE,
    "renal": {"total": str | None},
    "padua": {"at_least": int, "at_most": int},
}


@dataclass(frozen=True)
class RunNotes:
    """A case's part of a run's report.

    Attributes:
        boxes: the ROIs in voxels of the volume.
        seconds: by step.
        warnings: what the run warned of.
        judged: whether the run itself looked for missing and cut kidneys.
        error: why there is no prediction, where the run says so.
        tumors: the read-out's tumors with the keys of `TUMOR`; None where the run measured none of its predictions.
    """

    boxes: list[Box] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    judged: bool = False
    error: str | None = None
    tumors: list[dict[str, Any]] | None = None


def read_notes(folder: Path, name: str) -> RunNotes:
    """Read the run's report of a case, in `report.json` or its own file; empty where none can be read.

    Args:
        folder: of the prediction.
        name: of the prediction's file without its ending.
    """
    content = read_object(folder / "report.json") or {}
    failed, cases = content.get("failed"), content.get("cases")
    if isinstance(failed, Mapping) and isinstance(failed.get(name), Mapping):
        return RunNotes(error=printable(str(failed[name].get("error"))))
    entry = cases.get(name) if isinstance(cases, Mapping) else None
    if not isinstance(entry, Mapping):  # of a single scan there is no other report
        entry = read_object(folder / f"{name}.json") or {}
    if "boxes" not in entry:
        return RunNotes()
    read = {"seconds": {}, "warnings": [], **entry}
    readout = entry.get("readout")  # none where it failed, or was not asked for
    tumors = readout.get("tumors", "none") if isinstance(readout, Mapping) else None
    damaged = misfit(read, ENTRY) or (tumors is not None and misfit(tumors, [TUMOR]))
    if damaged or any(low > high for box in read["boxes"] for low, high in zip(*box, strict=True)):
        return RunNotes(warnings=["the run's report of this case is damaged"])
    boxes = [Box.from_list(corners) for corners in read["boxes"]]
    return RunNotes(boxes, read["seconds"], read["warnings"], judged="parts" in entry, tumors=tumors)


def doubts_of(scene: Scene, notes: RunNotes) -> list[str]:
    """List what should make a reader look twice: what the run warned of, and what the labels show."""
    if notes.judged:
        return notes.warnings
    window = bounding_slices(scene.prediction)
    middle = 0.0 if window is None else middle_of(scene.hu, window[0])
    found = doubts.doubt_parts(parts_of(scene.prediction, scene.spacing, middle), scene.prediction.shape)
    return [*notes.warnings, *(doubt for doubt in found if doubt not in notes.warnings)]
