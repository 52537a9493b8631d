"""How far a tumor's volume and diameter may be off: measured on what other networks, or the same ones less sure, call tumor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from kits.readout.extents import diameters_of
from kits.readout.nephrometry import size_points
from kits.readout.readings import CaseReading, TumorReading
from kits.volume import Spacing, bounding_slices
from kits.volume.components import connected

# A tumor is at least what has this probability, and at most what has that.
SURE, POSSIBLE = 0.75, 0.25
# Ours: an interval wider than this share of the value is an uncertain border: volume, diameter.
WIDE_VOLUME, WIDE_DIAMETER = 0.5, 0.2


def with_intervals(reading: CaseReading, spacing: Spacing, others: Iterable[np.ndarray]) -> CaseReading:
    """Give each tumor of a reading the least and the most of its volume and its axial diameter, and flag what is uncertain.

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
    tumors = [_told(*one) for one in zip(reading.tumors, volumes, diameters, strict=True)]
    return replace(reading, tumors=tumors)


def _shared(of: tuple[slice, ...], other: tuple[slice, ...]) -> tuple[slice, ...]:
    """The part of the window `of` that lies in another window, in indices of `of`."""
    return tuple(
        slice(max(a.start, b.start) - a.start, max(max(a.start, b.start), min(a.stop, b.stop)) - a.start)
        for a, b in zip(of, other, strict=True)
    )


def _told(tumor: TumorReading, volumes: list[float], diameters: list[float]) -> TumorReading:
    flags = []
    (v0, v1), (d0, d1) = ([min(values), max(values)] for values in (volumes, diameters))
    if v0 == 0:
        flags.append("uncertain: at the least there is no tumor here")
    elif v1 - v0 > WIDE_VOLUME * tumor.volume_ml or d1 - d0 > WIDE_DIAMETER * tumor.axial_mm:
        flags.append(f"uncertain border: {v0:.1f} to {v1:.1f} mL, diameter {d0:.0f} to {d1:.0f} mm")
    if size_points(d0) != size_points(d1):
        flags.append(f"uncertain score: the diameter's interval has {size_points(d0)} to {size_points(d1)} points of R")
    intervals = {"volume_interval_ml": {"least": v0, "most": v1}, "axial_interval_mm": {"least": d0, "most": d1}}
    return replace(tumor, flags=[*tumor.flags, *flags], **intervals)  # type: ignore[arg-type]
