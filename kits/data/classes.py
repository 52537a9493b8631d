"""Judgement of a data set's labels: do they mean what its configuration says?

One case cannot tell, all together can. Of 42 label maps of KiTS19 none has a region of 1 mL or more without kidney (label 1):
tumors grow on kidneys. One can take the place of a whole kidney, but not in case after case. Where labels 1 and 2 are the left
and the right kidney, or where kidney and tumor are exchanged, every case has such a region, as large as a kidney.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, CLASSES, KIDNEY, TUMOR
from kits.core.parallel import map_cases
from kits.data.validate import ERROR, WARNING, Finding, errors
from kits.io import read_labels
from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected
from kits.volume.parts import CHILD_KIDNEY_ML

# Of a region: with less of label 1 it is without kidney; the largest tumor of the 42 leaves 3 % beside it.
KIDNEY_SHARE = 0.01
# Of the cases: from here on it is the rule and no exception, and from there on odd.
RULE, ODD = 0.5, 0.1
# In 4 of the 42 the tumors are larger than the kidneys: only several cases can be odd in that.
SEVERAL = 4
STEP_MM = 3.0


@dataclass(frozen=True)
class Labelled:
    """The classes in one label map: mL by label, and its largest region without kidney."""

    case: str
    path: Path
    volumes_ml: tuple[float, ...]
    without_kidney: tuple[float, int] | None


def judge_truths(
    truths: Mapping[str, Path], ids: Mapping[int, int], *, workers: int, catch: tuple[type[Exception], ...] = ()
) -> list[Finding]:
    """Judge all label maps before hours are spent on them, and return what is odd and no error.

    Args:
        ids: what each id of the files means, `data.ids`.
        catch: errors for which a label map is left out here.

    Raises:
        KitsError: a label map cannot be read or holds other labels, or all together show that theirs are not what `ids` says.
    """
    calls = [(case, path, ids) for case, path in truths.items()]
    seen: list[Any] = map_cases(_read_and_look, calls, workers=workers, desc="truths", catch=catch)
    found = judge_classes([one for one in seen if isinstance(one, Labelled)])
    if serious := errors(found):
        raise KitsError(f"truth: {serious[0].finding}; {serious[0].remedy}")
    return found


def _read_and_look(case: str, path: Path, ids: Mapping[int, int]) -> Labelled:
    volume = read_labels(path, ids)
    return measure_classes(case, path, volume.array, volume.spacing)


def measure_classes(case: str, path: Path, labels: np.ndarray, spacing: Spacing) -> Labelled:
    """Measure the classes of a label map (z, y, x), spacing in mm, and its largest region without kidney."""
    steps = [max(1, int(STEP_MM // step)) for step in spacing]
    seen = labels[tuple(slice(step // 2, None, step) for step in steps)]
    voxel_ml = float(np.prod(spacing)) * float(np.prod(steps)) / 1000
    window = bounding_slices(seen)
    if window is None:
        return Labelled(case, path, (0.0,) * len(CLASSES), None)
    seen = np.ascontiguousarray(seen[window])
    regions = connected(seen > BACKGROUND)
    classes = len(CLASSES)
    pairs = regions.ravel().astype(np.int64) * classes + seen.ravel().clip(0, classes - 1)
    table = np.bincount(pairs, minlength=(int(regions.max()) + 1) * classes).reshape(-1, classes) * voxel_ml
    table[:, BACKGROUND] = 0
    whole = table.sum(axis=1)
    alone = np.where((whole >= CHILD_KIDNEY_ML) & (table[:, KIDNEY] < KIDNEY_SHARE * whole), whole, 0)
    largest = int(alone.argmax())
    told = (float(alone[largest]), int(table[largest].argmax())) if alone[largest] else None
    return Labelled(case, path, tuple(map(float, table.sum(axis=0))), told)


def judge_classes(seen: Sequence[Labelled]) -> list[Finding]:
    """Find what all label maps of a data set together say against its classes, a finding a case.

    An error where it is so in half of the cases (at least two): then the labels stand for something else. A warning where it is
    so in a tenth, or in a lone case.
    """
    return [*_without_kidney(seen), *_masses(seen), *_empty(seen)]


def _without_kidney(seen: Sequence[Labelled]) -> list[Finding]:
    shown = [one for one in seen if one.without_kidney is not None]
    if not shown or (len(seen) > 1 and (len(shown) == 1 or len(shown) < ODD * len(seen))):
        return []
    severity = ERROR if len(shown) >= max(2, RULE * len(seen)) else WARNING
    found = []
    for one in shown:
        assert one.without_kidney is not None
        ml, label = one.without_kidney
        what = (
            f"{one.path}: label {label} ({CLASSES[label]}) fills a region of {ml:.0f} mL that has no kidney (label {KIDNEY}),"
            f" as in {len(shown)} of {len(seen)} cases: are its labels the left and the right kidney, or exchanged?"
        )
        remedy = f"write them as {KIDNEY} kidney of either side, {TUMOR} tumor"
        found.append(Finding(one.case, severity, what, remedy))
    return found


def _masses(seen: Sequence[Labelled]) -> list[Finding]:
    """Warn of a label that outweighs the kidneys in most cases, as large tumors might."""
    found = []
    for label in range(KIDNEY + 1, len(CLASSES)):
        shown = [one for one in seen if one.volumes_ml[label] > one.volumes_ml[KIDNEY] > 0]
        if len(shown) < max(SEVERAL, RULE * len(seen)):
            continue
        for one in shown:
            ml, kidney = one.volumes_ml[label], one.volumes_ml[KIDNEY]
            what = (
                f"{one.path}: label {label} ({CLASSES[label]}) has {ml:.0f} mL and label {KIDNEY} (kidney) {kidney:.0f} mL,"
                f" more than the kidneys in {len(shown)} of {len(seen)} cases"
            )
            found.append(Finding(one.case, WARNING, what, "look at it: are the labels exchanged?"))
    return found


def _empty(seen: Sequence[Labelled]) -> list[Finding]:
    shown = [one for one in seen if not any(one.volumes_ml)]
    severity = ERROR if shown and len(shown) == len(seen) else WARNING
    return [Finding(one.case, severity, f"{one.path}: no kidney in it", "look at it: every KiTS case has one") for one in shown]
