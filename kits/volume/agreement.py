"""Compare the grids of two files, and say what differs as someone would who looks at both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.core.errors import KitsError
from kits.volume.geometry import Grid, Volume, from_stored, stored_order

# Headers of one scan differ in the last digits of their floats (KiTS19's own pairs do).
SPACING_TOLERANCE_MM, ORIGIN_TOLERANCE_MM, COSINE_TOLERANCE = 1e-3, 0.1, 1e-3
# Of a voxel: how far a part of a volume may lie off the volume's own voxels.
PLACE_TOLERANCE = 0.1
AXES = ("head-foot", "front-back", "left-right")


@dataclass(frozen=True)
class Disagreement:
    """Differences between the headers of two files; false where they agree.

    Attributes:
        differences: what differs, each to follow the name of the first file.
        order: in which order their voxels run, of which one header must be wrong.
    """

    differences: tuple[str, ...] = ()
    order: bool = False

    def __bool__(self) -> bool:
        return bool(self.differences)

    def __str__(self) -> str:
        return ", ".join(self.differences)


def compare(found: Grid, true: Grid) -> Disagreement:
    """Tell how `found` differs from `true`; two orders of axes of one grid agree."""
    if found.shape_zyx != true.shape_zyx:
        if found.size == true.size:
            return Disagreement((f"its header has the axes in another order ({_axes(found)}, not {_axes(true)})",), order=True)
        return Disagreement((f"has {found.shape_zyx} voxels (z, y, x), not {true.shape_zyx}",))
    told = []
    spacing, origin, direction = placement(found)
    true_spacing, true_origin, true_direction = placement(true)
    shift = true_direction.T @ (origin - true_origin)
    turned = found.size == true.size and (found.axes, found.flips) != (true.axes, true.flips)
    # A header that is mirrored in error sends the volume elsewhere; one that rightly describes mirrored voxels does not.
    mirrored = [
        one != other and abs(by) > step
        for one, other, by, step in zip(found.flips, true.flips, shift, true_spacing, strict=True)
        if turned
    ] or [False] * 3
    order = any(mirrored) or (turned and found.axes != true.axes and bool((abs(shift) > true_spacing).any()))
    if any(mirrored):
        told.append("its header is mirrored " + " and ".join(name for name, is_so in zip(AXES, mirrored, strict=True) if is_so))
    elif order:
        told.append(f"its header has the axes in another order ({_axes(found)}, not {_axes(true)})")
    if not np.allclose(spacing, true_spacing, rtol=0, atol=SPACING_TOLERANCE_MM):
        told.append(f"its spacing is {_triple(spacing)} mm (z, y, x), not {_triple(true_spacing)}")
    if not np.allclose(direction, true_direction, rtol=0, atol=COSINE_TOLERANCE):
        cosine = np.clip((np.trace(true_direction.T @ direction) - 1) / 2, -1, 1)
        told.append(f"it is tilted by {np.degrees(np.arccos(cosine)):.1f} degrees")
    moved = np.where(mirrored, 0, shift)  # how far a mirrored one was moved beside that nobody can tell
    if not np.allclose(moved, 0, rtol=0, atol=ORIGIN_TOLERANCE_MM):
        told.append(f"its origin is shifted by {_triple(moved)} mm (z, y, x)")
    return Disagreement(tuple(told), order)


def bring_to(true: Grid, found: Volume) -> np.ndarray:
    """Bring the voxels of `found`, (z, y, x) in LPS order, beside those of a file with grid `true`.

    No voxel is resampled. Where the headers disagree about the order of voxels, they are taken as they are stored, as KiTS's own
    scorers take them.

    Raises:
        KitsError: the sizes differ.
    """
    disagreement = compare(found.grid, true)
    if disagreement.order:
        return from_stored(stored_order(found.array, found.grid), true).array
    if found.array.shape != true.shape_zyx:
        raise KitsError(str(disagreement))
    return found.array


def lay_into(true: Grid, found: Volume) -> np.ndarray | None:
    """Lay a label map of a part of the grid `true` into all of it (z, y, x); None where it is no part."""
    spacing, origin, direction = placement(found.grid)
    true_spacing, true_origin, true_direction = placement(true)
    shift = true_direction.T @ (origin - true_origin) / true_spacing
    start = np.rint(shift).astype(int)
    stop = start + found.array.shape
    if (
        not np.allclose(spacing, true_spacing, rtol=0, atol=SPACING_TOLERANCE_MM)
        or not np.allclose(direction, true_direction, rtol=0, atol=COSINE_TOLERANCE)
        or not np.allclose(shift, start, rtol=0, atol=PLACE_TOLERANCE)
        or (start < 0).any()
        or (stop > true.shape_zyx).any()
    ):
        return None
    whole = np.zeros(true.shape_zyx, found.array.dtype)
    whole[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = found.array
    return whole


def placement(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return spacing (z, y, x), the first voxel's place in LPS order, and direction by columns z, y, x."""
    columns = np.reshape(grid.direction, (3, 3))
    origin = np.array(grid.origin, dtype=float)
    kept = []
    for axis, flip in zip(grid.axes, grid.flips, strict=True):
        index = 2 - axis
        kept.append(-columns[:, index] if flip else columns[:, index])
        if flip:
            origin += columns[:, index] * grid.spacing[index] * (grid.size[index] - 1)
    return np.array(grid.spacing_zyx), origin, np.stack(kept, axis=1)


def _axes(grid: Grid) -> str:
    """Return the letters of the stored axes as nibabel says them: where each runs to."""
    letters = [""] * 3
    for axis, flip, pair in zip(grid.axes, grid.flips, ("SI", "PA", "LR"), strict=True):
        letters[2 - axis] = pair[flip]
    return "".join(letters)


def _triple(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
