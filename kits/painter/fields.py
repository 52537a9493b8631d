"""Lattices in millimetres, smooth random fields on them, and interpolation between them.

Everything random in the phantom is built from `smooth_noise`: Gaussian control points a few millimetres apart under a cubic
B-spline. All interpolation is by sparse matrices with four entries a row, which (unlike BLAS) sum in one fixed order: the same
seed gives the same bytes whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Field = NDArray[np.floating[Any]]  # float32 throughout: at this size the bandwidth of memory is the speed
Triple = tuple[float, float, float]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Lattice:
    """Regular points along z, y and x: three increasing 1D float32 arrays in mm."""

    z: Field
    y: Field
    x: Field

    @classmethod
    def cover(cls, start: Triple, stop: Triple, step: Triple) -> Lattice:
        """Return points from `start` to `stop` (mm, both included) at most `step` mm apart."""
        axes = [
            np.linspace(low, high, max(2, int(np.ceil((high - low) / size - 1e-6)) + 1), dtype=np.float32)
            for low, high, size in zip(start, stop, step, strict=True)
        ]
        return cls(*axes)

    @classmethod
    def of_voxels(cls, shape: Sequence[int], spacing: Triple) -> Lattice:
        """Return the middles of a volume's voxels, shape and spacing in mm (z, y, x); the first is at 0."""
        return cls(*(np.arange(n, dtype=np.float32) * np.float32(size) for n, size in zip(shape, spacing, strict=True)))

    @property
    def axes(self) -> tuple[Field, Field, Field]:
        return self.z, self.y, self.x

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.z), len(self.y), len(self.x)

    @property
    def step(self) -> Triple:
        """Distance between neighbours (z, y, x) in mm."""
        z, y, x = (float(axis[1] - axis[0]) for axis in self.axes)
        return z, y, x

    @property
    def points(self) -> tuple[Field, Field, Field]:
        """Coordinates (z, y, x) of the points, each along its own axis alone, so that they broadcast."""
        z, y, x = np.meshgrid(*self.axes, indexing="ij", sparse=True)
        return z, y, x

    def part(self, where: Slices) -> Lattice:
        """Return the points in a box."""
        return Lattice(*(axis[part] for axis, part in zip(self.axes, where, strict=True)))

    def weights(self, points: Sequence[Field]) -> list[sparse.csr_array]:
        """Compute a matrix an axis, from values on the lattice to `points` in mm: curves through them."""
        return [
            cubic_weights(place, float(axis[0]), float(axis[1] - axis[0]), len(axis), spline=False)
            for place, axis in zip(points, self.axes, strict=True)
        ]

    def box(self, center: Triple, reach: Triple) -> Slices:
        """Find the slices of the points within `reach` mm of `center` (z, y, x); may be empty."""
        z, y, x = (
            slice(int(np.searchsorted(axis, mid - far)), int(np.searchsorted(axis, mid + far, side="right")))
            for axis, mid, far in zip(self.axes, center, reach, strict=True)
        )
        return z, y, x


def cubic_weights(points: Field, first: float, step: float, count: int, spline: bool) -> sparse.csr_array:
    """Compute the matrix (len(points), count) from values at `first + step * k` to `points`, in mm.

    Args:
        spline: cubic B-spline (smooth, for noise) instead of Catmull-Rom (through the values, for images).
    """
    position = np.clip((points - first) / step, 0, count - 1)
    left = np.minimum(position.astype(int), max(count - 2, 0))
    t = position - left
    if spline:
        taps = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
        taps = [tap / 6 for tap in taps]
    else:
        taps = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
        taps = [tap / 2 for tap in taps]
    rows = np.tile(np.arange(len(points)), 4)
    columns = np.concatenate([np.clip(left + shift, 0, count - 1) for shift in (-1, 0, 1, 2)])
    matrix = sparse.coo_array((np.concatenate(taps).astype(np.float32), (rows, columns)), shape=(len(points), count))
    return matrix.tocsr()


def enlarge_slice(image: Field, rows: sparse.csr_array, columns: sparse.csr_array) -> Field:
    """Compute `rows @ image @ columns.T` for one slice: (h, w) -> (H, W)."""
    return rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(image.T)).T)


def enlarge(field: Field, z: sparse.csr_array, y: sparse.csr_array, x: sparse.csr_array) -> Field:
    """Interpolate a small (z, y, x) field along the three axes."""
    wide = np.stack([enlarge_slice(image, y, x) for image in field])
    return (z @ wide.reshape(len(wide), -1)).reshape(z.shape[0], *wide.shape[1:])


def smooth_noise(rng: np.random.Generator, lattice: Lattice, cell: Triple) -> Field:
    """Draw smooth noise of mean 0 and standard deviation about 1, in blobs of about `cell` (z, y, x) mm."""
    matrices, counts = [], []
    for axis, size in zip(lattice.axes, cell, strict=True):
        count = int(np.ceil((axis[-1] - axis[0]) / size)) + 3
        matrices.append(cubic_weights(axis, float(axis[0]) - size, size, count, spline=True))
        counts.append(count)
    control = rng.standard_normal(counts, dtype=np.float32)
    # A cubic B-spline of unit control noise has variance 151 / 315 = 0.479 an axis, averaged over the cell.
    return enlarge(control * np.float32(0.479**-1.5), *matrices)


def resample(field: Field, source: Lattice, target: Lattice) -> Field:
    """Interpolate `field` (on `source`) at the points of `target`; held constant beyond the source."""
    return enlarge(field, *source.weights(target.axes))


def signed_distance(mask: NDArray[np.bool_], step: Triple) -> Field:
    """Compute the distance (mm) to the surface of `mask` (z, y, x), negative inside; 1e3 if empty."""
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    outside = ndimage.distance_transform_edt(~mask, sampling=step)
    inside = ndimage.distance_transform_edt(mask, sampling=step)
    return (outside - inside).astype(np.float32)


def ellipsoid(z: Field, y: Field, x: Field, radii: Triple) -> Field:
    """Approximate the signed distance (mm) to an ellipsoid of `radii` (z, y, x) about the origin.

    First-order estimate k (k - 1) / |grad| with k the implicit radius: exact on the surface, good near it.
    """
    pz, py, px = z / radii[0], y / radii[1], x / radii[2]
    k = np.sqrt(pz * pz + py * py + px * px)
    slope = np.sqrt((pz / radii[0]) ** 2 + (py / radii[1]) ** 2 + (px / radii[2]) ** 2) + 1e-6
    return k * (k - 1) / slope


def ridges(field: Field, thickness: float) -> Field:
    """Draw sheets where a field is zero, as a soft mask in [0, 1]: septa, strands and fascia."""
    return np.clip(1.5 - abs(field) / thickness, 0, 1)


def tubes(first: Field, second: Field, thickness: float) -> Field:
    """Draw branching lines like vessels, a soft mask in [0, 1], where two noise fields are both zero."""
    return np.clip(2 - 2 * np.sqrt(first * first + second * second) / thickness, 0, 1)
