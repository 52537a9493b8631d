"""What differs between two headers is named, and voxels are compared in the order that is right."""

from dataclasses import replace

import numpy as np
import pytest

from kits.core.errors import KitsError
from kits.volume import Grid, Volume, bring_to, compare, from_stored, stored_order

# As KiTS19 stores a scan of 20 slices: slices first, counted downwards.
TRUE = Grid((20, 30, 40), (4.0, 1.5, 1.5), (-30.0, -20.0, 100.0), (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0))
LABELS = np.random.default_rng(0).integers(0, 3, TRUE.size[::-1]).astype(np.uint8)


def flipped(grid: Grid, axis: int) -> Grid:
    """The header with one of its stored axes turned round about the first voxel."""
    columns = np.reshape(grid.direction, (3, 3)).copy()
    columns[:, axis] *= -1
    return replace(grid, direction=tuple(map(float, columns.ravel())))


def same_box(grid: Grid, axis: int) -> Grid:
    """The same, and the volume left where it is: right for voxels that are stored the other way round."""
    column = np.reshape(grid.direction, (3, 3))[:, axis]
    moved = np.array(grid.origin) + column * grid.spacing[axis] * (grid.size[axis] - 1)
    return replace(flipped(grid, axis), origin=tuple(map(float, moved)))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (flipped(TRUE, 2), "its header is mirrored left-right"),
        (flipped(TRUE, 1), "its header is mirrored front-back"),
        (flipped(TRUE, 0), "its header is mirrored head-foot"),
        (flipped(flipped(TRUE, 2), 1), "its header is mirrored front-back and left-right"),
        (replace(TRUE, origin=(-30.0, -20.0, 107.5)), "its origin is shifted by (7.5, 0, 0) mm (z, y, x)"),
        (replace(TRUE, spacing=(5.0, 1.5, 1.5)), "its spacing is (5, 1.5, 1.5) mm (z, y, x), not (4, 1.5, 1.5)"),
        (Grid(TRUE.size, (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel())), "the axes in another order (LPS, not IPL)"),
        (replace(TRUE, size=(19, 30, 40)), "has (19, 30, 40) voxels (z, y, x), not (20, 30, 40)"),
    ],
)  # fmt: skip
def test_what_differs_is_named_and_stored_voxels_meet_their_own(grid: Grid, words: str) -> None:
    differs = compare(grid, TRUE)
    assert words in str(differs)
    if grid.size != TRUE.size:
        with pytest.raises(KitsError, match="voxels"):
            bring_to(TRUE, from_stored(LABELS[:, :, :-1], grid))
        return
    truth = from_stored(LABELS, TRUE)
    np.testing.assert_array_equal(bring_to(TRUE, from_stored(LABELS, grid)), truth.array)


@pytest.mark.parametrize("axis", range(3))
def test_another_order_of_one_grid_agrees(axis: int) -> None:
    grid = same_box(TRUE, axis)
    truth = from_stored(LABELS, TRUE)
    other = Volume(truth.array, truth.spacing, grid)
    assert not compare(grid, TRUE)
    np.testing.assert_array_equal(bring_to(TRUE, other), truth.array)
    # Half a voxel off, as some resamplers write it, its own order still holds.
    off = replace(grid, origin=(grid.origin[0] + 0.7, *grid.origin[1:]))
    assert str(compare(off, TRUE)) == "its origin is shifted by (0, 0, 0.7) mm (z, y, x)"
    stored = np.ascontiguousarray(stored_order(truth.array, off))
    np.testing.assert_array_equal(bring_to(TRUE, from_stored(stored, off)), truth.array)


def test_last_digits_do_not_count() -> None:
    near = replace(TRUE, origin=(-30.01, -20.0, 100.0), spacing=(4.0004, 1.5, 1.5))
    assert not compare(near, TRUE)
    tilted = (0.0, 0.0, 1.0, 0.1, np.sqrt(0.99), 0.0, -np.sqrt(0.99), 0.1, 0.0)
    assert "tilted by 5.7 degrees" in str(compare(replace(TRUE, direction=tuple(map(float, tilted))), TRUE))
