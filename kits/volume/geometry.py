"""Geometry of an image file, and its voxels in LPS order and back.

Orientation is a permuted and flipped view of the reader's buffer, so a 278-million-voxel scan is never copied for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """The geometry of an image as its file has it: SimpleITK's (x, y, z), mm, nine cosines row by row.

    Attributes:
        notes: what a reader of a result should know of how it was made of the file.
    """

    size: Triple
    spacing: Spacing
    origin: Spacing
    direction: tuple[float, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def _physical_to_index(self) -> Triple:
        """Index axes that run closest to physical x, y, z (LPS).

        Greedy by the largest cosine, and of equal cosines the last, as ITK decides for oblique images.
        """
        cosines = np.abs(np.reshape(self.direction, (3, 3)))
        found = [0, 0, 0]
        for _ in range(3):
            physical, index = divmod(8 - int(np.argmax(cosines.ravel()[::-1])), 3)
            found[physical] = index
            cosines[physical, :] = -1
            cosines[:, index] = -1
        return found[0], found[1], found[2]

    @property
    def steps(self) -> np.ndarray:
        """(3, 3) mm: column n is the step (x, y, z) from one voxel to the next along index axis n."""
        return np.reshape(self.direction, (3, 3)) * self.spacing

    @property
    def axes(self) -> Triple:
        """Permutation that takes SimpleITK's array (k, j, i) to (slice, row, column)."""
        x, y, z = self._physical_to_index
        # SimpleITK's index axes are (i, j, k), its arrays (k, j, i): index axis n is axis 2 - n of the array.
        return 2 - z, 2 - y, 2 - x

    @property
    def flips(self) -> tuple[bool, bool, bool]:
        """True for each of (slice, row, column) that, after `axes`, runs against Superior, Posterior, Left."""
        x, y, z = self._physical_to_index
        cosines = np.reshape(self.direction, (3, 3))
        # Row r, column c of the direction is the cosine of physical axis r (x, y, z) and index axis c. SimpleITK is LPS whatever
        # the file is: a NIfTI file's RAS matrix comes with its first two rows negated.
        return bool(cosines[2, z] < 0), bool(cosines[1, y] < 0), bool(cosines[0, x] < 0)

    @property
    def spacing_zyx(self) -> Spacing:
        """Voxel spacing in mm along (slice, row, column)."""
        x, y, z = self._physical_to_index
        return self.spacing[z], self.spacing[y], self.spacing[x]

    @property
    def shape_zyx(self) -> Triple:
        """Voxels along (slice, row, column)."""
        x, y, z = self._physical_to_index
        return self.size[z], self.size[y], self.size[x]


@dataclass(frozen=True)
class Volume:
    """A scan or a label map in LPS order.

    Attributes:
        array: (z, y, x); a read-only view of what was read, or any array of that order.
        spacing: (z, y, x) mm.
        grid: the geometry of the file that it came from.
    """

    array: np.ndarray
    spacing: Spacing
    grid: Grid


class _Buffer:
    """An image's memory lent to numpy; its views keep the image alive, as SimpleITK's own do not."""

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        self.__array_interface__: dict[str, Any] = sitk.GetArrayViewFromImage(image).__array_interface__


def grid_of(image: sitk.Image) -> Grid:
    """Return the geometry of a 3D image."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def from_image(image: sitk.Image) -> Volume:
    """Return a 3D scalar image as a Volume whose array is a read-only view of the image's memory."""
    return from_stored(np.asarray(_Buffer(image)), grid_of(image))


def from_stored(stored: np.ndarray, grid: Grid) -> Volume:
    """Return voxels (k, j, i), in the order of a file, as a Volume of a read-only view of them."""
    array = _flip(stored.transpose(grid.axes), grid.flips)
    array.flags.writeable = False
    return Volume(array, grid.spacing_zyx, grid)


def stored_order(array: np.ndarray, grid: Grid) -> np.ndarray:
    """Return an array (z, y, x) in LPS order as a view (k, j, i), in the order of its file.

    Raises:
        ValueError: the array has another shape than the grid.
    """
    if array.shape != grid.shape_zyx:
        raise ValueError(f"array {array.shape} does not fit the grid {grid.shape_zyx}")
    return _flip(array, grid.flips).transpose(np.argsort(grid.axes))


def _flip(array: np.ndarray, flips: tuple[bool, bool, bool]) -> np.ndarray:
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
