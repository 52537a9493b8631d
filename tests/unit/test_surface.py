"""Surface elements and distances: by hand, and against DeepMind's and MONAI's own code."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.evaluation import Measures
from kits.core.labels import CLASSES, HIERARCHICAL_REGIONS, evaluated_regions
from kits.io import read_labels
from kits.metrics.case import measure_case
from kits.metrics.surface import compare_surfaces, hausdorff_of_voxels, neighbor_codes, surfel_areas
from tests.conftest import ellipsoid

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 0.7, 0.9), (0.5, 0.8, 0.8)]
# DeepMind's package still calls scipy's functions by names that scipy means to retire.
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")


def deepmind(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> tuple[float, float]:
    """Surface Dice and HD95 of DeepMind's own package."""
    import surface_distance.metrics as oracle

    found = oracle.compute_surface_distances(truth, prediction, spacing)
    return oracle.compute_surface_dice_at_tolerance(found, tolerance), oracle.compute_robust_hausdorff(found, 95)


def monai(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> tuple[float, float]:
    """Surface Dice and HD95 of MONAI's functions."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": [float(step) for step in spacing]}
    dice = compute_surface_dice(*pair, class_thresholds=[tolerance], use_subvoxels=True, **options)
    return dice.item(), compute_hausdorff_distance(*pair, percentile=95, **options).item()


def ours(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> tuple[float, float]:
    surfaces = compare_surfaces(prediction, truth, spacing)
    return surfaces.dice(tolerance), surfaces.hausdorff()


def two_ellipsoids() -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth (20, 40, 44) that overlap in part, and a stray voxel in each."""
    prediction, truth = ellipsoid((20, 40, 44), (9, 20, 20), (6, 9, 8)), ellipsoid((20, 40, 44), (10, 21, 22), (6, 8, 9))
    prediction[1, 2, 40] = truth[18, 38, 1] = True
    return prediction, truth


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_area_of_every_pattern_is_deepminds(spacing: tuple[float, float, float]) -> None:
    from surface_distance.lookup_tables import ENCODE_NEIGHBOURHOOD_3D_KERNEL, create_table_neighbour_code_to_surface_area

    theirs = create_table_neighbour_code_to_surface_area(spacing)
    # The weight that their kernel gives to each corner, in the order of our bits.
    weights = ENCODE_NEIGHBOURHOOD_3D_KERNEL.ravel()
    same = [sum(int(weights[bit]) for bit in range(8) if code >> bit & 1) for code in range(256)]
    np.testing.assert_allclose(surfel_areas(spacing), theirs[same], atol=1e-12)


def test_areas_by_hand() -> None:
    areas = surfel_areas((5.0, 2.0, 3.0))
    assert areas[0] == areas[255] == 0
    # One corner cut off: a triangle between the halves of the three edges.
    corner = math.sqrt((2.5 * 1) ** 2 + (2.5 * 1.5) ** 2 + (1 * 1.5) ** 2) / 2
    assert areas[0b1] == pytest.approx(corner)
    assert areas[0b11111110] == pytest.approx(corner)
    assert areas[0b1111] == pytest.approx(2 * 3)  # the lower slice inside, the upper outside


def test_codes_name_the_voxels_around_a_point() -> None:
    voxel = np.ones((1, 1, 1), np.uint8)
    assert neighbor_codes(voxel).ravel().tolist() == [128, 64, 32, 16, 8, 4, 2, 1]
    mask = (np.random.default_rng(0).random((4, 5, 6)) < 0.5).astype(np.uint8)
    whole, codes = np.pad(mask, 1), neighbor_codes(mask)
    for z, y, x in np.ndindex(codes.shape):
        assert codes[z, y, x] == sum(int(bit) << k for k, bit in enumerate(whole[z : z + 2, y : y + 2, x : x + 2].ravel()))


def test_the_surface_of_a_large_box_is_that_of_a_box_with_beveled_edges() -> None:
    mask = np.ones((30, 40, 50), bool)
    found = compare_surfaces(mask, mask, (2.0, 1.0, 0.5))
    sides = np.array([30 * 2.0, 40 * 1.0, 50 * 0.5])
    faces = 2 * sum(a * b for a, b in combinations(sides, 2))
    # Each of the four edges along an axis loses half a voxel of both its faces and gains the bevel between them.
    assert faces * 0.98 < found.truth_areas.sum() < faces
    assert found.to_truth.max() == found.to_prediction.max() == 0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_shifted_slab_lies_at_the_shift(spacing: tuple[float, float, float]) -> None:
    truth = np.zeros((14, 60, 60), bool)
    truth[2:10] = True
    prediction = np.roll(truth, 2, axis=0)
    found = compare_surfaces(prediction, truth, spacing)
    assert found.dice(2 * spacing[0]) == 1
    assert found.hausdorff() == pytest.approx(2 * spacing[0])
    # Just below the shift neither slab's two faces count any more; what is left are the rims, which run beside one another.
    faces = 4 * 40 * 40 * spacing[1] * spacing[2]  # what of them is farther from any rim
    assert found.dice(1.99 * spacing[0]) < 1 - faces / (found.truth_areas.sum() + found.prediction_areas.sum())


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("tolerance", [0.0, 1.1498198361434828, 4.0])
def test_ellipsoids_score_as_deepminds_own_code_says(spacing: tuple[float, float, float], tolerance: float) -> None:
    prediction, truth = two_ellipsoids()
    assert ours(prediction, truth, spacing, tolerance) == pytest.approx(deepmind(prediction, truth, spacing, tolerance), abs=1e-9)


@pytest.mark.slow  # importing MONAI takes a quarter of a minute
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("tolerance", [1.1498198361434828, 4.0])
def test_ellipsoids_score_as_monais_own_code_says(spacing: tuple[float, float, float], tolerance: float) -> None:
    prediction, truth = two_ellipsoids()
    dice, _ = ours(prediction, truth, spacing, tolerance)
    their_dice, their_hd95 = monai(prediction, truth, spacing, tolerance)
    assert dice == pytest.approx(their_dice, abs=1e-5)
    assert hausdorff_of_voxels(prediction, truth, spacing) == pytest.approx(their_hd95, rel=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_distance_of_border_voxels_is_its_definition(spacing: tuple[float, float, float]) -> None:
    masks = two_ellipsoids()
    found, true = (np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in masks)
    distances = cdist(found, true)
    expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
    assert hausdorff_of_voxels(*masks, spacing) == pytest.approx(expected)


@settings(deadline=None, max_examples=30)  # a busy machine is no failure
@given(seed=st.integers(0, 10**6), density=st.floats(0.05, 0.95))
def test_noise_that_touches_the_border_scores_as_deepminds_code_says(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    prediction, truth = (rng.random((5, 6, 7)) < density for _ in range(2))
    prediction[2, 3, 4] = truth[0, 0, 0] = True
    spacing = tuple(rng.uniform(0.4, 5, 3))
    assert ours(prediction, truth, spacing, 1.0) == pytest.approx(deepmind(prediction, truth, spacing, 1.0), abs=1e-9)


def test_air_around_the_masks_and_the_order_of_axes_change_nothing() -> None:
    prediction, truth = two_ellipsoids()
    spacing = (2.5, 0.7, 0.9)
    expected = (*ours(prediction, truth, spacing, 1.0), hausdorff_of_voxels(prediction, truth, spacing))
    wide = [np.pad(mask, ((7, 3), (0, 30), (11, 2))) for mask in (prediction, truth)]
    assert (*ours(*wide, spacing, 1.0), hausdorff_of_voxels(*wide, spacing)) == pytest.approx(expected, rel=1e-12)
    turned = [mask.transpose(2, 0, 1)[::-1] for mask in (prediction, truth)]
    steps = (spacing[2], spacing[0], spacing[1])
    assert (*ours(*turned, steps, 1.0), hausdorff_of_voxels(*turned, steps)) == pytest.approx(expected, rel=1e-12)


def test_emptiness() -> None:
    nothing, something = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    something[1:3, 2:4, 2:4] = True
    spacing = (1.0, 1.0, 1.0)
    assert ours(nothing, nothing, spacing, 1.0) == (1, 0)
    assert hausdorff_of_voxels(nothing, nothing, spacing) == 0
    for pair in ((nothing, something), (something, nothing)):
        assert ours(*pair, spacing, 1.0) == (0, math.inf)
        assert hausdorff_of_voxels(*pair, spacing) == math.inf


@pytest.mark.slow  # shared data
@pytest.mark.parametrize("case", ["case_00015", "case_00030", "case_00110", "case_00130"])
def test_a_real_label_map_scores_as_the_official_scorers_define(shared_data: Path, case: str) -> None:
    """KiTS19: label > 0 and label > 1; KiTS21 and KiTS23: hierarchical classes, DeepMind's surface Dice at their tolerances."""
    volume = read_labels(shared_data / "kits19" / case / "segmentation.nii.gz", allowed=(0, 1, 2))
    truth, spacing = volume.array.copy(), volume.spacing
    truth[: len(truth) // 2][truth[: len(truth) // 2] == 1] = 3  # KiTS19 tells no cysts apart; the scores need some
    prediction = np.roll(truth, (1, 3, -2), axis=(0, 1, 2))
    measures = parse(Measures, compose("evaluate", ["prediction=x", "truth=x", "output=x"])["measures"])
    values = measure_case(prediction, truth, spacing, evaluated_regions(CLASSES), measures).values
    for name, labels in HIERARCHICAL_REGIONS.items():
        found, true = np.isin(prediction, labels), np.isin(truth, labels)
        dice = 2 * np.logical_and(found, true).sum() / (found.sum() + true.sum())
        surface_dice, hd95 = deepmind(found, true, spacing, measures.tolerances_mm[name])
        assert values[name] == pytest.approx(dice, abs=1e-12)
        assert values[f"{name}_surface_dice"] == pytest.approx(surface_dice, abs=1e-9)
        assert values[f"{name}_hd95_mm"] == pytest.approx(hd95, abs=1e-9)
        assert values[f"{name}_ml"] == pytest.approx(true.sum() * math.prod(spacing) / 1000)
