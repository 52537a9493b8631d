"""Give volume and diameter an interval, from label maps by other networks or from probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from kits.readout.diameters import diameters_of
from kits.readout.nephrometry import size_points
from kits.readout.readings import CaseReading, Range
from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected

# A tumor is at least what has this probability, and at most what has that.
SURE, POSSIBLE = 0.75, 0.25
# Ours: an interval wider than this share of the value is an uncertain border: volume, diameter.
WIDE_VOLUME, WIDE_DIAMETER = 0.5, 0.2


def with_intervals(reading: CaseReading, spacing: Spacing, others: Iterable[np.ndarray]) -> CaseReading:
    """Give each tumor of a reading an interval of its volume and axial diameter, and flag doubts.

    Args:
        spacing: (z, y, x) mm.
        others: bool (z, y, x) on the grid of what was read, one after the other: what a member of an ensemble calls tumor, or
            what has a probability. Of each the regions that meet a tumor are taken for it.
    """
    regions = [(shapes.region, number) for shapes in reading.shapes for number in range(1, shapes.region.tumor_count + 1)]
    volumes, diameters = ([[getattr(one, name)] for one in reading.tumors] for name in ("volume_ml", "axial_mm"))
    voxel_ml = float(np.prod(spacing)) / 1000
    for other in others:
        window = bounding_slices(other)
        numbered = connected(np.ascontiguousarray(other[window])) if window else None
        for index, (region, number) in enumerate(regions):
            volume = diameter = 0.0
            if window is not None and numbered is not None:
                meant = np.unique(
                    numbered[_shared(window, region.window)][(region.tumors == number)[_shared(region.window, window)]]
                )
                mask = np.isin(numbered, meant[meant > 0])
                if box := bounding_slices(mask):
                    volume, diameter = float(mask.sum()) * voxel_ml, diameters_of(mask[box], spacing).axial
            volumes[index].append(volume)
            diameters[index].append(diameter)
    tumors = []
    for tumor, *both in zip(reading.tumors, volumes, diameters, strict=True):
        ml, mm = (Range(min(values), max(values)) for values in both)
        flags = [*tumor.flags]
        if ml.least == 0:
            flags.append("uncertain: at the least there is no tumor here")
        elif ml.most - ml.least > WIDE_VOLUME * tumor.volume_ml or mm.most - mm.least > WIDE_DIAMETER * tumor.axial_mm:
            flags.append(f"uncertain border: {ml.least:.1f} to {ml.most:.1f} mL, diameter {mm.least:.0f} to {mm.most:.0f} mm")
        points = size_points(mm.least), size_points(mm.most)
        if points[0] != points[1]:
            flags.append(f"uncertain score: the diameter's interval has {points[0]} to {points[1]} points of R")
        tumors.append(replace(tumor, flags=flags, volume_interval_ml=ml, axial_interval_mm=mm))
    return replace(reading, tumors=tumors)


def _shared(of: tuple[slice, ...], other: tuple[slice, ...]) -> tuple[slice, ...]:
    """Intersect the window `of` with another one, in indices of `of`."""
    return tuple(
        slice(max(a.start, b.start) - a.start, max(max(a.start, b.start), min(a.stop, b.stop)) - a.start)
        for a, b in zip(of, other, strict=True)
    )
