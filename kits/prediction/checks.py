"""Is a scan worth segmenting? A network answers whatever it is shown, so what is no CT in HU is refused before it is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kits.data.findings import ERROR
from kits.data.plausible import BINS, check_hu, histogram
from kits.data.validate import MIN_SLICES, odd_geometry
from kits.errors import KitsError
from kits.volume import Volume

SLAB = 32


def check_scan(volume: Volume, path: Path, *, allow_implausible: bool) -> list[str]:
    """What a reader of the result should know of a scan's geometry and intensities.

    Args:
        allow_implausible: what is refused otherwise (a missing HU offset, a windowed picture, an absurd spacing) is a warning.

    Raises:
        KitsError: too few slices, or a scan that cannot be a CT in HU.
    """
    if min(volume.array.shape) < MIN_SLICES:
        z, y, x = volume.array.shape
        raise KitsError(f"{path}: only {z} x {y} x {x} voxels (z, y, x); a single picture or a scout? Give the whole scan")
    counts = np.zeros(BINS, np.int64)
    for start in range(0, len(volume.array), SLAB):
        counts += histogram(volume.array[start : start + SLAB])
    findings = [(ERROR, what, remedy) for what, remedy in odd_geometry(volume.grid)]
    findings += [
        (found.severity, found.finding.removeprefix(f"{path}: "), found.remedy) for found in check_hu("", str(path), counts)
    ]
    for severity, what, remedy in findings:
        if severity == ERROR and not allow_implausible:
            raise KitsError(f"{path}: {what}; {remedy}, or add allow_implausible=true")
    return [f"{what}; {remedy}" for _, what, remedy in findings]
