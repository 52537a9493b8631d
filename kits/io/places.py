"""Positions of slices in the patient, and whether they are one even stack, judged in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits.volume import Grid

# How far directions may be from unit length and right angles: scanners write cosines with three digits or more.
ORTHONORMAL = 5e-3
# Slices are of one plane where their corners, seen from their first pixels, are no farther apart than this.
_PLANE_MM = 0.5
# Slices are even where each lies this near to its place on a straight line: scanners round positions to 0.1 mm or better. Of
# thick slices a tenth, and never so much that a missing slice, which moves its neighbors by half a step, could hide.
_EVEN_MM, _EVEN_PART, _MOST_PART = 0.1, 0.1, 0.25


@dataclass(frozen=True)
class Places:
    """Positions of n slices in mm (x to the left, y to the back, z to the head of the patient).

    Attributes:
        sizes: (n, 2) rows and columns.
        spacings: (n, 2) between rows and between columns; NaN where a header has none.
        cosines: (n, 2, 3) the direction in which a row runs, and the one in which a column runs.
        positions: (n, 3) of the first pixel's center.
    """

    sizes: np.ndarray
    spacings: np.ndarray
    cosines: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, chosen: np.ndarray) -> Places:
        return Places(self.sizes[chosen], self.spacings[chosen], self.cosines[chosen], self.positions[chosen])

    @classmethod
    def join(cls, parts: Sequence[Places]) -> Places:
        """Return the slices of all parts, one part after the other."""
        together = zip(*((part.sizes, part.spacings, part.cosines, part.positions) for part in parts), strict=True)
        return cls(*(np.concatenate(arrays) for arrays in together))

    @property
    def normal(self) -> np.ndarray:
        """The direction (3) that is upright on the first slice."""
        normal = np.cross(*self.cosines[0])
        return normal / np.linalg.norm(normal)

    @property
    def along(self) -> np.ndarray:
        """Position (n) of each slice along the normal."""
        return self.positions @ self.normal

    @property
    def order(self) -> np.ndarray:
        """The indices (n) that sort the slices along the normal, whatever the order of the files or frames."""
        return np.argsort(self.along, kind="stable")

    @property
    def are_sized(self) -> bool:
        """True where every slice has a spacing; ITK would take 1 mm where it has none."""
        return bool((np.isfinite(self.spacings) & (self.spacings > 0)).all())

    @property
    def are_upright(self) -> bool:
        """True where rows and columns are orthonormal; ITK would silently make them so."""
        products = self.cosines @ self.cosines.transpose(0, 2, 1)
        return bool((np.abs(products - np.eye(2)) <= 2 * ORTHONORMAL).all())

    def planes(self) -> np.ndarray:
        """Number (n) of each slice's plane; slices of one size, spacing and direction have one number."""
        # From the first pixel to the last of the first row, and of the first column.
        edges = self.cosines * ((self.sizes - 1) * self.spacings)[:, ::-1, None]
        numbers = np.full(len(self), -1)
        while (rest := np.flatnonzero(numbers < 0)).size:
            first = rest[0]
            near = (np.linalg.norm(edges - edges[first], axis=2) <= _PLANE_MM).all(axis=1)
            numbers[rest] = np.where((near & (self.sizes == self.sizes[first]).all(axis=1))[rest], first, -1)
            numbers[first] = first
        return numbers

    def step(self) -> np.ndarray:
        """Step (3) from one slice to the next, in order: the straight line nearest to all of them."""
        count = np.arange(len(self)) - (len(self) - 1) / 2
        return count @ (self.positions - self.positions.mean(axis=0)) / (count @ count)

    def uneven(self) -> str | None:
        """Tell why slices in their order, of one plane, are no stack of even steps; else None."""
        normal, step = self.normal, self.step()
        height, gaps = float(step @ normal), np.diff(self.along)
        off = self.positions - self.positions.mean(axis=0) - np.outer(np.arange(len(self)) - (len(self) - 1) / 2, step)
        tolerance = min(max(_EVEN_MM, _EVEN_PART * height), _MOST_PART * height)
        if height <= 0 or np.abs(off @ normal).max() > tolerance:
            return f"slices are missing, doubled or uneven ({gaps.min():.2f} to {gaps.max():.2f} mm apart)"
        drift = float(np.linalg.norm(step - height * normal))
        if drift > ORTHONORMAL * height and drift * (len(self) - 1) > tolerance:
            return "slices are shifted against each other (gantry tilt)"
        if np.linalg.norm(off - np.outer(off @ normal, normal), axis=1).max() > tolerance:
            return "slices are shifted against each other"
        return None

    def grid(self) -> Grid:
        """Return the geometry of an even stack, as ITK has it."""
        step = self.step()
        height = float(np.linalg.norm(step))
        axis = step / height
        if np.linalg.norm(axis - self.normal) > ORTHONORMAL:  # a few thin slices whose positions are rounded
            axis = self.normal
        # Rounded, so that the best line through exact positions has their exact step.
        directions = np.column_stack([*self.cosines[0], np.round(axis, 9) + 0.0])
        (rows, columns), (down, right), (x, y, z) = self.sizes[0].tolist(), self.spacings[0].tolist(), self.positions[0].tolist()
        return Grid((columns, rows, len(self)), (right, down, round(height, 6)), (x, y, z), tuple(directions.ravel().tolist()))
