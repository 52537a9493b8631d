"""Orientation as a view, the exact way back, crops and the coarse grid."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.config.schema.stage import CoarseRoi
from kits.inference.coarse import rois_of
from kits.volume import (
    area_resize,
    bounding_slices,
    coarse_planes,
    crop,
    from_image,
    grid_of,
    labels_to_coarse,
    plane_grid,
    slabs,
    stored_order,
    to_coarse,
)
from kits.volume.rois import Box, coverage

ORIENTATIONS = [(axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)]


def make_image(direction: np.ndarray, dtype: type = np.int16) -> sitk.Image:
    image = sitk.GetImageFromArray(np.arange(4 * 5 * 6, dtype=dtype).reshape(4, 5, 6))
    image.SetSpacing((0.7, 0.8, 3.1))
    image.SetOrigin((-12.3, 45.6, 7.0 / 3))
    image.SetDirection(direction.ravel().tolist())
    return image


def signed_permutation(axes: tuple[int, ...], signs: tuple[float, ...]) -> np.ndarray:
    matrix = np.zeros((3, 3))
    matrix[list(axes), range(3)] = signs
    return matrix


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    transform = sitk.Euler3DTransform((0, 0, 0), *np.radians(degrees).tolist())
    return np.reshape(transform.GetMatrix(), (3, 3))


def assert_like_itk(image: sitk.Image) -> None:
    volume, expected = from_image(image), sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(expected))
    assert volume.spacing == expected.GetSpacing()[::-1]
    assert volume.grid.shape_zyx == volume.array.shape


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_orientation_is_itks_for_every_axis_order(axes: tuple[int, ...], signs: tuple[float, ...]) -> None:
    assert_like_itk(make_image(signed_permutation(axes, signs)))


@pytest.mark.parametrize("degrees", [(10, 0, 0), (0, -30, 12), (44, 3, 80), (50, 50, 50), (-100, 20, 170)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_orientation_is_itks_for_oblique_images(degrees: tuple[float, float, float], axes: tuple[int, ...]) -> None:
    assert_like_itk(make_image(rotation(degrees) @ signed_permutation(axes, (1, -1, 1))))


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::5])
def test_the_way_back_is_bit_exact(axes: tuple[int, ...], signs: tuple[float, ...]) -> None:
    image = make_image(rotation((5, 7, 11)) @ signed_permutation(axes, signs))
    volume = from_image(image)
    assert volume.grid == grid_of(image)
    np.testing.assert_array_equal(stored_order(volume.array, volume.grid), sitk.GetArrayFromImage(image))


def test_orientation_copies_nothing() -> None:
    image = make_image(signed_permutation((2, 0, 1), (-1, 1, -1)))
    assert np.shares_memory(from_image(image).array, sitk.GetArrayViewFromImage(image))


def test_the_array_outlives_its_image() -> None:
    arrays = [from_image(make_image(np.eye(3)) + i).array for i in range(20)]
    gc.collect()
    assert [int(array.min()) for array in arrays] == list(range(20))


def test_an_array_of_another_shape_is_refused() -> None:
    volume = from_image(make_image(np.eye(3)))
    with pytest.raises(ValueError, match="does not fit"):
        stored_order(volume.array[1:], volume.grid)


@settings(deadline=None)  # a busy machine is no failure
@given(
    start=st.tuples(*[st.integers(-9, 9)] * 3),
    shape=st.tuples(*[st.integers(1, 8)] * 3),
)
def test_a_crop_equals_slicing_a_padded_array(start: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
    array = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    padded = np.pad(array, 20, constant_values=-1024)
    window = tuple(slice(s + 20, s + 20 + n) for s, n in zip(start, shape, strict=True))
    patch = crop(array, start, shape, -1024)
    np.testing.assert_array_equal(patch, padded[window])


def test_the_bounding_window_is_tight_and_none_when_empty() -> None:
    mask = np.zeros((5, 6, 7), dtype=bool)
    assert bounding_slices(mask) is None
    mask[1, 5, 2] = mask[3, 4, 6] = True
    assert bounding_slices(mask) == (slice(1, 4), slice(4, 6), slice(2, 7))


@pytest.mark.parametrize(
    ("shape", "inner"),
    [
        ((3, 512, 512), (256, 256)),
        ((252, 512, 796), (165, 256)),
        ((2, 101, 122), (212, 256)),
        ((2, 700, 699), (256, 256)),
    ],
)
def test_both_sides_shrink_by_one_rounded_factor(shape: tuple[int, int, int], inner: tuple[int, int]) -> None:
    grid = plane_grid(shape, 256)
    assert grid.inner == (shape[0], *inner)
    assert grid.shape == (shape[0], 256, 256)
    _, dy, dx = grid.spacing((5.0, 0.8, 0.8))
    assert abs(dy / dx - 1) < 0.004  # not squashed: less than one rounded pixel


def test_factor_two_is_the_mean_of_four() -> None:
    array = np.random.default_rng(0).integers(-1000, 3000, (2, 8, 6), dtype=np.int16)
    expected = array.astype(float).reshape(2, 4, 2, 3, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(area_resize(array, (4, 3)), expected)
    np.testing.assert_allclose(area_resize(array.astype(np.float32), (4, 3)), expected)


@settings(deadline=None)  # a busy machine is no failure
@given(n=st.integers(1, 40), m=st.integers(1, 40), k=st.integers(1, 40))
def test_area_averaging_keeps_the_mean_and_constants(n: int, m: int, k: int) -> None:
    array = np.random.default_rng(n).normal(size=(2, n, 7)).astype(np.float32)
    np.testing.assert_allclose(area_resize(array, (m, k)).mean(axis=(1, 2)), array.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(area_resize(np.full((1, n, m), -1000, np.int16), (k, 5)), -1000, rtol=1e-6)


def test_area_averaging_does_not_shift() -> None:
    ramp = np.broadcast_to(np.arange(50, dtype=np.float32)[None, None, :] + 0.5, (1, 3, 50))  # voxel centers
    centers = (np.arange(20) + 0.5) * 50 / 20
    offset = area_resize(ramp, (3, 20))[0, 0] - centers
    assert abs(offset).max() < 0.06  # steps of a whole native voxel are averaged
    assert abs(offset.mean()) < 1e-5


def test_padding_is_the_callers_air_and_never_water() -> None:
    array = np.full((40, 30, 60), 55, dtype=np.int16)
    grid = plane_grid(array.shape, 32)
    coarse = to_coarse(array, grid, -1024)
    assert coarse.dtype == np.int16
    assert (coarse[grid.inside] == 55).all()
    coarse[grid.inside] = -1024
    assert (coarse == -1024).all()


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_slabs_are_the_volume_in_plain_order(axes: tuple[int, ...], signs: tuple[float, ...]) -> None:
    memory = np.random.default_rng(0).integers(-1000, 1000, (41, 37, 39), dtype=np.int16)
    view = memory.transpose(axes)[tuple(slice(None, None, int(sign)) for sign in signs)]
    blocks = list(slabs(view, depth=15))
    assert [start for start, _ in blocks] == list(range(0, len(view), 15))
    assert all(block.flags.c_contiguous for _, block in blocks)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), view)


def test_slabs_of_a_plain_volume_are_parts_of_it() -> None:
    plain = np.zeros((40, 5, 6), np.int16)
    assert all(np.shares_memory(block, plain) for _, block in slabs(plain))


def test_slabs_do_not_show_in_the_coarse_image() -> None:
    array = np.random.default_rng(1).integers(-1000, 1000, (70, 20, 30), dtype=np.int16)
    grid = plane_grid(array.shape, 16)
    whole = np.rint(area_resize(array, grid.inner[1:]))
    np.testing.assert_array_equal(to_coarse(array, grid, -1024)[grid.inside], whole)


@pytest.mark.parametrize("shape", [(5, 64, 64), (5, 60, 101), (5, 97, 80), (5, 20, 24)])
def test_labels_do_not_shift_on_the_coarse_grid(shape: tuple[int, int, int]) -> None:
    y, x = np.ogrid[: shape[1], : shape[2]]
    labels = np.zeros(shape, dtype=np.uint8)
    distance = np.hypot(y - shape[1] * 0.4, x - shape[2] * 0.6)
    labels[1:4, distance < shape[1] * 0.3] = 1
    labels[2, distance < shape[1] * 0.15] = 2
    grid = plane_grid(shape, 32)
    coarse = labels_to_coarse(labels, grid)
    for label in (1, 2):
        native = np.argwhere(labels >= label).mean(axis=0) + 0.5
        found = np.argwhere(coarse >= label).mean(axis=0) + 0.5
        found = (found - grid.offset) * np.array(shape) / grid.inner
        np.testing.assert_allclose(found, native, atol=0.25 * 0.5 * max(shape[1:]) / 32)


def test_labels_of_whole_coarse_voxels_stay_as_they_are() -> None:
    coarse = np.random.default_rng(0).integers(0, 3, (2, 8, 8), dtype=np.uint8)
    labels = coarse.repeat(3, axis=1).repeat(3, axis=2)
    grid = plane_grid(labels.shape, 8)
    np.testing.assert_array_equal(labels_to_coarse(labels, grid), coarse)


@settings(deadline=None)  # a busy machine is no failure
@given(
    shape=st.tuples(st.integers(1, 200), st.integers(5, 900), st.integers(5, 900)),
    size=st.integers(4, 256),
    thickness=st.floats(0.3, 6),
    least=st.none() | st.floats(0.5, 6),
    data=st.data(),
)
def test_every_coarse_window_maps_back_to_just_the_voxels_that_it_touches(
    shape: tuple[int, int, int], size: int, thickness: float, least: float | None, data: st.DataObject
) -> None:
    grid = plane_grid(shape, size, coarse_planes(shape[0], thickness, least))
    corners = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in grid.inner]
    start, stop = (tuple(o + c[i] for o, c in zip(grid.offset, corners, strict=True)) for i in (0, 1))
    low, high = grid.to_native(start, stop)  # type: ignore[arg-type]
    for axis in range(3):
        n, m, (a, b) = grid.native[axis], grid.inner[axis], corners[axis]
        touched = [v for v in range(n) if v * m < b * n and (v + 1) * m > a * n] if a < b else []
        if touched:
            assert (low[axis], high[axis]) == (touched[0], touched[-1] + 1)
    whole = grid.to_native(grid.offset, tuple(o + n for o, n in zip(grid.offset, grid.inner, strict=True)))  # type: ignore[arg-type]
    assert whole == ((0, 0, 0), shape)


@settings(deadline=None)  # a busy machine is no failure
@given(slices=st.integers(1, 1100), thickness=st.floats(0.3, 6), least=st.floats(0.5, 6))
def test_thin_slices_become_thick_enough_and_thick_ones_stay(slices: int, thickness: float, least: float) -> None:
    planes = coarse_planes(slices, thickness, least)
    assert coarse_planes(slices, thickness, None) == slices
    if thickness >= least:
        assert planes == slices
    else:
        coarse = slices * thickness / planes
        assert planes == 1 or coarse >= least * (1 - 1e-6)
        assert (planes + 1) * least > slices * thickness  # no thicker than it must be


@settings(deadline=None)  # a busy machine is no failure
@given(n=st.integers(2, 60), data=st.data())
def test_joined_slices_keep_the_mean_the_place_and_what_prevails(n: int, data: st.DataObject) -> None:
    planes = data.draw(st.integers(1, n - 1))
    array = np.random.default_rng(n).integers(-1000, 1000, (n, 4, 4), dtype=np.int16)
    grid = plane_grid(array.shape, 4, planes)
    coarse = to_coarse(array, grid, -1024)
    assert coarse.shape == (planes, 4, 4)
    np.testing.assert_allclose(coarse.mean(axis=0), array.mean(axis=0), atol=0.51)
    expected = area_resize(array.transpose(1, 0, 2), (planes, 4)).transpose(1, 0, 2)  # the in-plane rule, turned over
    np.testing.assert_allclose(coarse, np.rint(expected), atol=1)
    labels = np.repeat(np.random.default_rng(planes).integers(0, 3, (planes, 4, 4), dtype=np.uint8), 3, axis=0)
    np.testing.assert_array_equal(labels_to_coarse(labels, plane_grid(labels.shape, 4, planes)), labels[::3])


def test_a_kidney_of_thin_slices_is_found_on_thick_ones_and_wholly_covered() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = np.zeros((90, 64, 64), np.uint8)
        for x in (8, 40):
            z, y = rng.integers(5, 20), rng.integers(2, 20)
            labels[z : z + rng.integers(30, 60), y : y + 30, x : x + 16] = 1
        grid = plane_grid(labels.shape, 32, coarse_planes(90, 0.7, 3.0))
        rule = CoarseRoi(count=2, min_voxels=0, min_ml=None, rank="size", margin_mm=0)
        boxes = [
            Box(*grid.to_native(box.start, box.stop))
            for box in rois_of(labels_to_coarse(labels, grid) > 0, grid, (0.7, 1, 1), rule)
        ]
        assert len(boxes) == 2
        covered = [box.grow_mm(3.0, (0.7, 1, 1), labels.shape) for box in boxes]  # less than half a coarse slice may be lost
        assert coverage(covered, labels > 0) == 1.0
