"""The paper's ROI rule and what is done to boxes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kits.config.schema.stage import CoarseRoi
from kits.inference.coarse import rois_of
from kits.io import read_labels
from kits.volume import labels_to_coarse, plane_grid
from kits.volume.rois import Box, body_box, coverage, find_rois, jitter
from tests.conftest import SHARED

KITS19 = SHARED / "kits19"

corners = st.tuples(*[st.tuples(st.integers(0, 19), st.integers(0, 19)).map(sorted) for _ in range(3)])
boxes = corners.map(lambda pairs: Box(tuple(a for a, _ in pairs), tuple(b + 1 for _, b in pairs)))


def three_regions() -> np.ndarray:
    mask = np.zeros((10, 30, 30), dtype=bool)
    mask[1:5, 2:8, 3:9] = True  # 144 voxels
    mask[2:8, 20:28, 20:26] = True  # 288
    mask[8:10, 2:4, 20:29] = True  # 36
    return mask


def test_the_largest_regions_come_first() -> None:
    found = find_rois(three_regions(), count=2, min_voxels=0)
    assert found == [Box((2, 20, 20), (8, 28, 26)), Box((1, 2, 3), (5, 8, 9))]


@pytest.mark.parametrize(("min_voxels", "regions"), [(35, 3), (36, 2), (143, 2), (144, 1), (288, 0)])
def test_a_region_needs_more_than_the_threshold(min_voxels: int, regions: int) -> None:
    assert len(find_rois(three_regions(), count=3, min_voxels=min_voxels)) == regions


def test_a_threshold_in_ml_replaces_the_one_in_voxels() -> None:
    spacing = (5.0, 2.0, 1.0)  # 0.01 mL: the regions have 1.44, 2.88 and 0.36 mL
    assert len(find_rois(three_regions(), count=3, min_voxels=10**6, min_ml=1.5, spacing=spacing)) == 1
    assert len(find_rois(three_regions(), count=3, min_voxels=10**6, min_ml=0.3, spacing=spacing)) == 3
    with pytest.raises(ValueError, match="spacing"):
        find_rois(three_regions(), count=3, min_voxels=0, min_ml=1.0)


def test_regions_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[:2, :2, :2] = mask[2:, 2:, 2:] = True
    assert find_rois(mask, count=2, min_voxels=0) == [Box((0, 0, 0), (4, 4, 4))]


def test_an_empty_mask_has_no_roi() -> None:
    assert find_rois(np.zeros((3, 4, 5), dtype=bool), count=2, min_voxels=0) == []


@settings(deadline=None)  # a busy machine is no failure
@given(seed=st.integers(0, 10**6), density=st.floats(0.01, 0.35), min_voxels=st.integers(0, 6))
def test_rois_are_the_tight_boxes_of_the_two_largest_regions(seed: int, density: float, min_voxels: int) -> None:
    mask = np.random.default_rng(seed).random((6, 9, 11)) < density
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))  # an independent labeling
    regions = [
        ((labels == k).sum(), Box(*zip(*[(part.start, part.stop) for part in window], strict=True)))
        for k, window in enumerate(ndimage.find_objects(labels), start=1)
    ]
    sizes = sorted((size for size, _ in regions if size > min_voxels), reverse=True)[:2]
    found = find_rois(mask, count=2, min_voxels=min_voxels)
    assert len(found) == len(sizes)
    for box, size in zip(found, sizes, strict=True):
        regions.remove((size, box))  # where several are of a size, any of them may be meant, each once


@settings(deadline=None)  # a busy machine is no failure
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(6, 40), st.integers(6, 40)),
    planes=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    margin=st.floats(0, 9),
)
def test_rois_on_the_volumes_own_grid_hold_every_voxel_of_the_two_largest_regions(
    shape: tuple[int, int, int], planes: int, seed: int, margin: float
) -> None:
    """Any coarse mask, slices joined or not, with padding or without: no voxel that a kept region touches is outside."""
    grid = plane_grid(shape, 16, min(planes, shape[0]))
    native = (1.0, 0.8, 0.8)
    mask = np.random.default_rng(seed).random(grid.shape) < 0.06
    found = rois_of(mask, grid, native, CoarseRoi(count=2, min_voxels=1, min_ml=None, rank="size", margin_mm=0))
    inner, number = ndimage.label(mask[grid.inside], np.ones((3, 3, 3)))
    sizes = np.bincount(inner.ravel(), minlength=number + 1)[1:]
    assert len(found) == min(2, (sizes > 1).sum())
    for box, size in zip(found, sorted(sizes, reverse=True), strict=False):
        start, stop = grid.to_native(box.start, box.stop)
        wide = Box(start, stop).grow_mm(margin, native, shape)
        held = []
        for k in np.flatnonzero(sizes == size) + 1:
            voxels = np.ones(1, bool)
            for axis, (n, m) in enumerate(zip(shape, grid.inner, strict=True)):
                cells = np.flatnonzero((inner == k).any(axis=tuple({0, 1, 2} - {axis})))
                touched = [v for v in range(n) if any(v * m < (c + 1) * n and (v + 1) * m > c * n for c in cells)]
                voxels &= all(wide.start[axis] <= v < wide.stop[axis] for v in touched)
            held.append(bool(voxels.all()))
        assert any(held)


def test_what_a_network_sees_in_the_padding_is_no_roi_and_the_rule_may_count_in_ml() -> None:
    grid = plane_grid((12, 20, 40), 20, 4)  # pixels of twice the size, three slices to a coarse one, 5 rows of padding
    mask = np.zeros(grid.shape, bool)
    mask[:, :4] = True
    rule = CoarseRoi(count=2, min_voxels=0, min_ml=None, rank="size", margin_mm=0)
    assert rois_of(mask, grid, (1.0, 0.5, 0.5), rule) == []
    mask[1:3, 6:10, 3:8] = True  # 40 voxels of 3 x 1 x 1 mm
    assert rois_of(mask, grid, (1.0, 0.5, 0.5), rule) == [Box((1, 6, 3), (3, 10, 8))]
    assert rois_of(mask, grid, (1.0, 0.5, 0.5), rule.model_copy(update={"min_ml": 0.12})) == []
    assert len(rois_of(mask, grid, (1.0, 0.5, 0.5), rule.model_copy(update={"min_voxels": 10**6, "min_ml": 0.119}))) == 1


@settings(deadline=None)  # a busy machine is no failure
@given(box=boxes, margin=st.floats(0, 40), spacing=st.tuples(*[st.floats(0.4, 5)] * 3))
def test_growth_has_the_margin_and_never_leaves_the_volume(box: Box, margin: float, spacing: tuple) -> None:
    grown = box.grow_mm(margin, spacing, (20, 20, 20))
    for axis in range(3):
        assert 0 <= grown.start[axis] <= box.start[axis]
        assert box.stop[axis] <= grown.stop[axis] <= 20
        below = (box.start[axis] - grown.start[axis]) * spacing[axis]
        assert grown.start[axis] == 0 or margin - 1e-4 <= below < margin + spacing[axis]


def test_growth_is_measured_in_millimeters() -> None:
    box = Box((10, 100, 100), (12, 110, 120))
    assert box.grow_mm(10, (5.0, 1.0, 0.8), (50, 500, 500)) == Box((8, 90, 87), (14, 120, 133))
    assert box.grow_mm(3, (0.3, 3.0, 3.1), (50, 500, 500)).start == (0, 99, 99)


@settings(deadline=None)  # a busy machine is no failure
@given(box=boxes, seed=st.integers(0, 10**6), most=st.floats(0, 60))
def test_jitter_stays_inside_near_and_never_empty(box: Box, seed: int, most: float) -> None:
    spacing = (3.0, 0.7, 0.7)
    moved = jitter(box, np.random.default_rng(seed), most, spacing, (20, 20, 20))
    for axis in range(3):
        assert 0 <= moved.start[axis] < moved.stop[axis] <= 20
        assert abs(moved.start[axis] - box.start[axis]) <= max(most / spacing[axis], box.shape[axis]) + 1
    assert jitter(box, np.random.default_rng(seed), 0.0, spacing, (20, 20, 20)) == box


def test_jitter_moves_every_face_by_its_own() -> None:
    rng = np.random.default_rng(0)
    box = Box((20, 50, 50), (30, 80, 90))
    moved = np.array([jitter(box, rng, 5, (1.0, 1.0, 1.0), (99, 99, 99)).to_list() for _ in range(400)])
    offsets = moved - np.array(box.to_list())
    assert (offsets.min(axis=0) == -5).all()
    assert (offsets.max(axis=0) == 5).all()
    assert abs(np.corrcoef(offsets.reshape(400, 6).T) - np.eye(6)).max() < 0.2


def test_a_box_survives_json() -> None:
    box = find_rois(three_regions(), count=1, min_voxels=0)[0]
    assert Box.from_list(json.loads(json.dumps(box.to_list()))) == box


def test_the_body_is_found_without_the_table() -> None:
    volume = np.full((4, 64, 64), -1024, dtype=np.int16)
    volume[:, 13:45, 10:51] = 30
    volume[:, 55:57, 5:60] = 100  # the table
    box = body_box(volume, -300)
    assert coverage([box], volume[:] == 30) == 1.0
    assert all(a - 4 < b <= a for a, b in zip((0, 13, 10), box.start, strict=True))
    assert all(a <= b < a + 4 for a, b in zip((4, 45, 51), box.stop, strict=True))
    assert body_box(np.full((2, 9, 8), -1024, np.int16), -300) == Box((0, 0, 0), (2, 9, 8))


@settings(deadline=None)  # a busy machine is no failure
@given(found=st.lists(boxes, max_size=3), seed=st.integers(0, 10**6))
def test_coverage_is_of_the_union(found: list[Box], seed: int) -> None:
    mask = np.random.default_rng(seed).random((20, 20, 20)) < 0.02
    union = np.zeros_like(mask)
    for box in found:
        union[box.slices] = True
    expected = (mask & union).sum() / mask.sum() if mask.any() else 1.0
    assert coverage(found, mask) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.skipif(not KITS19.exists(), reason="no shared data here")
@pytest.mark.parametrize(("case", "regions"), [(0, 2), (5, 1), (10, 2), (15, 2), (23, 2), (151, 1), (160, 2), (165, 1)])
def test_the_rule_keeps_every_voxel_of_real_kidneys(case: int, regions: int) -> None:
    path = KITS19 / f"case_{case:05d}" / "segmentation.nii.gz"
    if not path.exists():
        pytest.skip(f"no case {case} here")
    volume = read_labels(path, allowed=(0, 1, 2))
    labels = volume.array
    grid = plane_grid(labels.shape, 256)
    found = find_rois(labels_to_coarse(labels, grid) > 0, count=2, min_voxels=4000)
    assert len(found) == regions
    native = [Box(*grid.to_native(box.start, box.stop)) for box in found]
    assert coverage(native, labels > 0) > 0.9999  # less than half a coarse voxel sticks out where it is cut
    grown = [box.grow_mm(10, volume.spacing, labels.shape) for box in native]
    assert coverage(grown, labels == 2) == coverage(grown, labels > 0) == 1.0


SPACING = (5.0, 2.0, 2.0)
SCAN = (60, 150, 200)  # 300 x 300 x 400 mm


def patient() -> np.ndarray:
    """A body of 360 x 260 mm in air, HU (z, y, x)."""
    hu = np.full(SCAN, -1000, np.int16)
    hu[ellipsoid((150, 150, 200), (10_000, 130, 180))] = 40
    return hu


def ellipsoid(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Inside of an ellipsoid, both in mm from the first voxel, (z, y, x)."""
    at = np.meshgrid(*((np.arange(n) + 0.5) * step for n, step in zip(SCAN, SPACING, strict=True)), indexing="ij", sparse=True)
    return sum(((place - middle) / radius) ** 2 for place, middle, radius in zip(at, center, radii, strict=True)) <= 1


KIDNEYS = {"right": ellipsoid((105, 180, 132), (50, 32, 30)), "left": ellipsoid((140, 180, 268), (55, 30, 28))}  # 201 and 194 mL
LIVER = ellipsoid((225, 120, 110), (70, 65, 80))
SPLEEN = ellipsoid((220, 190, 320), (65, 45, 30))
BONE = ellipsoid((150, 215, 200), (140, 22, 25))  # of the spine
OTHERS = LIVER | SPLEEN


def chosen(mask: np.ndarray, *parts: np.ndarray, hu: np.ndarray | None = None) -> bool:
    """Whether the boxes by likeness are those of these parts."""
    given = patient() if hu is None else hu
    found = find_rois(mask, count=2, min_voxels=0, min_ml=5, spacing=SPACING, hu=given)
    return sorted(box.to_list() for box in found) == sorted(find_rois(part, count=1, min_voxels=0)[0].to_list() for part in parts)


def test_kidneys_are_told_from_larger_organs_which_the_papers_rule_takes() -> None:
    mask = KIDNEYS["right"] | KIDNEYS["left"] | OTHERS | BONE
    largest = find_rois(mask, count=2, min_voxels=0, min_ml=5, spacing=SPACING)
    assert largest == [find_rois(part, count=1, min_voxels=0)[0] for part in (LIVER, SPLEEN)]
    assert chosen(mask, KIDNEYS["right"], KIDNEYS["left"])


@pytest.mark.parametrize("axis", [0, 2])
def test_left_and_right_or_head_and_feet_may_be_exchanged(axis: int) -> None:
    mask = KIDNEYS["right"] | KIDNEYS["left"] | OTHERS
    turned = {side: np.flip(kidney, axis) for side, kidney in KIDNEYS.items()}
    assert chosen(np.flip(mask, axis), turned["right"], turned["left"], hu=np.flip(patient(), axis))


def test_one_kidney_comes_before_all_else_and_what_is_second_is_looked_at() -> None:
    spots = ellipsoid((60, 60, 200), (12, 12, 12))
    for side in KIDNEYS:
        mask = KIDNEYS[side] | OTHERS | BONE | spots
        (only,) = find_rois(mask, count=1, min_voxels=0, min_ml=5, spacing=SPACING, hu=patient())
        assert only == find_rois(KIDNEYS[side], count=1, min_voxels=0)[0]
        assert len(find_rois(mask, count=2, min_voxels=0, min_ml=5, spacing=SPACING, hu=patient())) == 2


def test_a_horseshoe_kidney_is_one_region_across_the_spine() -> None:
    horseshoe = KIDNEYS["right"] | KIDNEYS["left"] | ellipsoid((110, 170, 200), (12, 10, 70))
    found = find_rois(horseshoe | OTHERS, count=2, min_voxels=0, min_ml=5, spacing=SPACING, hu=patient())
    assert find_rois(horseshoe, count=1, min_voxels=0)[0] in found


def test_a_kidney_that_the_field_of_view_cuts_may_be_small() -> None:
    mask = KIDNEYS["right"] | KIDNEYS["left"] | OTHERS
    rest = slice(27, None)
    parts = [KIDNEYS[side][rest] for side in ("right", "left")]
    assert 5 < parts[0].sum() * 0.02 < 30  # mL
    assert chosen(mask[rest], *parts, hu=patient()[rest])


def test_a_kidney_full_of_tumor_is_likelier_than_liver_and_spleen() -> None:
    tumor = KIDNEYS["left"] | ellipsoid((120, 160, 255), (70, 60, 55))  # 0.9 L
    assert chosen(KIDNEYS["right"] | tumor | LIVER | SPLEEN & ~tumor, KIDNEYS["right"], tumor)


def test_of_two_regions_on_a_side_the_one_beside_the_other_kidney_is_taken() -> None:
    """A psoas and the head of a thigh bone are as large as a kidney and as far from the middle."""
    right, left = ellipsoid((215, 180, 132), (50, 32, 30)), ellipsoid((235, 180, 268), (55, 30, 28))
    psoas, hip = ellipsoid((50, 170, 262), (48, 40, 38)), ellipsoid((40, 180, 125), (38, 38, 38))  # larger than the kidneys
    for others in (psoas, hip):
        assert chosen(right | left | others, right, left)
    assert chosen(right | psoas, right, psoas)  # where there is nothing else it is looked at


def test_two_hips_beside_each_other_do_not_come_before_kidneys_of_which_one_is_large() -> None:
    """A kidney with a tumor has not all figures of a kidney; two smaller regions in the pelvis may have them."""
    right = ellipsoid((230, 170, 132), (60, 66, 44))  # 730 mL
    left = ellipsoid((235, 180, 268), (55, 30, 28))
    hips = ellipsoid((50, 180, 125), (38, 30, 26)) | ellipsoid((52, 180, 275), (38, 30, 26))  # 124 mL each
    assert chosen(right | left | hips, right, left)


def test_the_rule_of_a_configuration_ranks_as_it_says() -> None:
    grid = plane_grid(SCAN, 200)
    mask = np.zeros(grid.shape, bool)
    mask[grid.inside] = KIDNEYS["right"] | KIDNEYS["left"] | OTHERS
    hu = np.full(grid.shape, -1024, np.int16)
    hu[grid.inside] = patient()
    rule = CoarseRoi(count=2, min_voxels=0, min_ml=5, rank="size", margin_mm=0)
    largest = rois_of(mask, grid, SPACING, rule, hu)
    assert any(
        coverage([Box(*grid.to_native(box.start, box.stop)) for box in largest], kidney) < 1 for kidney in KIDNEYS.values()
    )
    ranked = rois_of(mask, grid, SPACING, rule.model_copy(update={"rank": "kidney"}), hu)
    for kidney in KIDNEYS.values():
        assert coverage([Box(*grid.to_native(box.start, box.stop)) for box in ranked], kidney) == 1
