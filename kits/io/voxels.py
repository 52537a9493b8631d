"""Voxel values of any type, part by part, as the project's two: int16 HU and uint8 labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kits.core.errors import KitsError
from kits.core.labels import CLASSES

HU_RANGE = (-32768, 32767)

# From values as they are stored (any shape) to values of the wanted type; may return what it was given.
Convert = Callable[[np.ndarray], np.ndarray]


def to_hu(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert values to int16 HU: CT numbers fit, padding of -3024 too.

    Half the memory of float32 is spared throughout. Fractions are rounded, halves up as ITK rounds them; what lies outside int16
    is clipped.

    Raises:
        KitsError: NaN or infinite values.
    """
    if values.dtype == np.int16:
        return values
    low, high = HU_RANGE
    if values.dtype.kind == "f":
        _refuse_non_finite(values, path)
        values = np.floor(values + np.float64(0.5))
    else:
        held = np.iinfo(values.dtype)  # numpy refuses bounds that the type itself cannot hold
        low, high = max(low, held.min), min(high, held.max)
    return np.clip(values, low, high).astype(np.int16)


def to_bytes_of_one(values: np.ndarray, path: Path) -> np.ndarray:
    """Convert probabilities, 0 to 1, as uint8, 0 to 255.

    Raises:
        KitsError: NaN or infinite values, or some outside 0 to 1.
    """
    if values.dtype.kind == "f":
        _refuse_non_finite(values, path)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0 or high > 1 + 1e-4:  # 255 times a float32 of 1 / 255 is a little more than 1
        raise KitsError(f"{path}: values from {low:g} to {high:g} are no probabilities; give what save=[probabilities] writes")
    return np.rint(values * 255).astype(np.uint8)


# A whole number that was stored as a float, or times a slope, may be so far off; what was interpolated is farther in some voxel.
ROUNDED = 1e-4


class LabelCheck:
    """Values as uint8 labels, remembering those that are not allowed, so that they are named together."""

    def __init__(self, path: Path, classes: Mapping[int, int], seen: set[int] | None = None) -> None:
        self.seen = seen
        self.path = path
        self.classes = dict(classes)
        self.allowed = frozenset(self.classes)
        self.unknown: set[float] = set()
        self.table: np.ndarray | None = None
        if any(number != label for number, label in self.classes.items()):
            self.table = np.zeros(256, np.uint8)
            self.table[list(self.classes)] = list(self.classes.values())

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Convert the values to uint8, arbitrary where they are not allowed.

        Raises:
            KitsError: NaN or infinite values.
        """
        if values.dtype.kind == "f":
            _refuse_non_finite(values, self.path)
            whole = np.rint(values)
            values = whole if np.abs(values - whole).max(initial=0) <= ROUNDED else values
        low, high = values.min(), values.max()
        if low >= 0 and high <= 255:
            labels = values.astype(np.uint8, copy=False)
            # Two passes at the speed of memory; counting values, let alone sorting them, takes many times as long.
            if self.allowed.issuperset(range(int(low), int(high) + 1)) and (
                values.dtype.kind in "iu" or np.array_equal(labels, values)
            ):
                return self.meant(labels)
        self.unknown |= set(map(float, np.unique(values))) - self.allowed
        return self.meant(values.clip(0, 255).astype(np.uint8))

    def meant(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels that the ids of the file stand for, and note those that occur where asked to."""
        if self.seen is not None:
            self.seen |= set(map(int, np.flatnonzero(np.bincount(labels.ravel(), minlength=256))))
        return labels if self.table is None else self.table[labels]

    def refuse_unknown(self) -> None:
        """Raise KitsError where a value was not allowed."""
        if self.unknown:
            first = ", ".join(f"{value:.7g}" for value in sorted(self.unknown)[:5]) + (", ..." if len(self.unknown) > 5 else "")
            known = sorted((value, label) for value, label in self.classes.items() if label < len(CLASSES))
            meant = ", ".join(f"{value} {CLASSES[label]}" for value, label in known)
            remedy = "correct the label map, or say what its ids mean with data.labels"
            if min(self.unknown) < -100:
                remedy = "this looks like HU of a scan; give a label map (kits.measure takes scans with coarse= and fine=)"
            elif any(value % 1 for value in self.unknown):
                remedy = "these are no labels but probabilities, or labels that were interpolated: give whole numbers"
            raise KitsError(f"{self.path}: label values {first} are not among {meant}; {remedy}")


def _refuse_non_finite(values: np.ndarray, path: Path) -> None:
    if not np.isfinite(values).all():
        raise KitsError(f"{path}: has voxels that are NaN or infinite; replace them with air (-1024 HU) or background")
