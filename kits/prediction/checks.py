"""Is a scan worth segmenting? A network answers whatever it is shown, so what is no CT in HU is refused before it is asked."""

from __future__ import annotations

from pathlib import Path

from kits.core.errors import KitsError
from kits.data.validate import MIN_SLICES, odd_geometry
from kits.volume import Volume
from kits.volume.plausible import Oddity, counts_of, oddities


def check_scan(volume: Volume, path: Path, *, allow_implausible: bool) -> tuple[list[str], list[Oddity]]:
    """What a reader of the result should know of a scan's geometry, and of its intensities, of which the segmenter warns.

    Args:
        allow_implausible: what is refused otherwise (a missing HU offset, a windowed picture, an absurd spacing) is a warning.

    Raises:
        KitsError: too few slices, or a scan that cannot be a CT in HU.
    """
    if min(volume.array.shape) < MIN_SLICES:
        z, y, x = volume.array.shape
        raise KitsError(f"{path}: only {z} x {y} x {x} voxels (z, y, x); a single picture or a scout? Give the whole scan")
    geometry = [f"{what}; {remedy}" for what, remedy in odd_geometry(volume.grid)]
    scale = oddities(counts_of(volume.array))
    if not allow_implausible:
        for finding in [*geometry, *(oddity for oddity in scale if oddity.serious)]:
            raise KitsError(f"{path}: {finding}, or add allow_implausible=true")
    return geometry, scale
