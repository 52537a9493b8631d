"""What the run that made a prediction told of it (`kits.predict` writes it beside), and what makes a case doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kits.core.errors import printable
from kits.core.plain_files import misfit, read_object
from kits.reporting.scene import Scene, Window
from kits.volume.components import connected
from kits.volume.rois import Box

LEAST_KIDNEY_ML = 20.0  # of a region that counts as a kidney: a child's has that much
# mL of a kidney without its tumors and cysts; adults have about 110 to 230, and some grow to twice that when the other is gone.
PLAUSIBLE_ML = (50.0, 450.0)
MANY_TUMORS = 4
CORNER = (int, int, int)
# What is read of a case in a run's report.
ENTRY = {"boxes": [(CORNER, CORNER)], "seconds": {str: float}, "warnings": [str]}


@dataclass(frozen=True)
class RunNotes:
    """A case's part of a run's report.

    Attributes:
        boxes: the ROIs in voxels of the volume.
        seconds: by step.
        warnings: what the run warned of.
        judged: whether the run itself looked for missing and cut kidneys.
        error: why there is no prediction, where the run says so.
    """

    boxes: list[Box] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    judged: bool = False
    error: str | None = None


def read_notes(folder: Path, name: str) -> RunNotes:
    """The run's report of a case, from `report.json` or the case's own file; an empty one where there is none that can be read.

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
    if misfit(read, ENTRY) or any(low > high for box in read["boxes"] for low, high in zip(*box, strict=True)):
        return RunNotes(warnings=["the run's report of this case is damaged"])
    boxes = [Box.from_list(corners) for corners in read["boxes"]]
    return RunNotes(boxes, read["seconds"], read["warnings"], judged="parts" in entry)


def doubts_of(scene: Scene, run: RunNotes) -> list[str]:
    """What should make a reader look twice at a prediction: the run's warnings, and what the labels themselves show."""
    own = [] if run.judged else anatomy(scene)
    return [*run.warnings, *(doubt for doubt in [*own, *volumes(scene)] if doubt not in run.warnings)]


def anatomy(scene: Scene) -> list[str]:
    """Missing or surplus kidneys, and kidneys that end where the scan ends."""
    if not scene.prediction.any():
        return ["nothing found"]
    window = scene.marked
    assert window is not None
    kidneys = kidneys_ml(scene, window)
    doubts = [] if len(kidneys) == 2 else [f"{len(kidneys)} kidneys (regions of {LEAST_KIDNEY_ML:g} mL or more)"]
    ends = {"first": scene.prediction[0], "last": scene.prediction[-1]}
    return doubts + [f"reaches the {name} slice of the scan" for name, labels in ends.items() if labels.any()]


def volumes(scene: Scene) -> list[str]:
    """Volumes that no kidney has, and many separate tumors."""
    window = scene.marked
    if window is None or not scene.prediction.any():
        return []
    low, high = PLAUSIBLE_ML
    doubts = [
        f"a kidney of {volume:.0f} mL without its tumors ({low:g} to {high:g} is usual)"
        for volume in kidneys_ml(scene, window)
        if not low <= volume <= high
    ]
    tumors = int(connected(scene.prediction[window] == 2).max())
    return doubts + ([f"{tumors} separate tumors"] if tumors >= MANY_TUMORS else [])


def kidneys_ml(scene: Scene, window: Window) -> list[float]:
    """Volumes in mL, without tumors and cysts, of the connected regions that count as kidneys."""
    labels = np.ascontiguousarray(scene.prediction[window])
    regions = connected(labels > 0)
    voxel_ml = float(np.prod(scene.spacing)) / 1000
    whole = np.bincount(regions.ravel())[1:] * voxel_ml
    tissue = np.bincount(regions.ravel(), weights=(labels == 1).ravel())[1:] * voxel_ml
    return [float(volume) for volume, of_all in zip(tissue, whole, strict=True) if of_all >= LEAST_KIDNEY_ML]
