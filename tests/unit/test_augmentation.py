"""Augmentation: what a configuration may say, that image and label stay together, and that a seed decides it all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai import transforms

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.augmentation import AnyStep
from kits.config.schema.augmentation import Augmentation as Schema
from kits.core.errors import KitsError
from kits.data.transforms import Augmentation, State, Warp
from tests.conftest import data_of, prepare

PATCH = (8, 24, 20)
WINDOW = (-100, 300)
CUBES = (1.0, 1.0, 1.0)
SETS = ("none", "light", "full")
FULL: dict[str, Any] = compose("train", ["stage=fine", "augmentation=full"])["data"]["augmentation"]


def surely(name: str, **changed: object) -> dict[str, Any]:
    """One entry of the full set that always happens."""
    return {name: {**FULL[name], "prob": 1.0, **changed}}


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, np.ndarray]:
    """Smooth HU (z, y, x) whose labels are thresholds of it, so that any warp must keep them together."""
    z, y, x = np.mgrid[0:20, 0:60, 0:50]
    hu = (100 + 120 * np.sin(x / 7) * np.cos(y / 9) + 5 * z).astype(np.int16)
    return hu, (hu > 100).astype(np.uint8) + (hu > 160).astype(np.uint8)


def augmentation(options: dict[str, Any], patch: Any = PATCH, window: Any = WINDOW) -> Augmentation:
    """The steps that the schema makes of a plain group."""
    return Augmentation(parse(Schema, options, "augmentation"), patch, window)


def vary(scan: tuple[np.ndarray, np.ndarray], options: dict[str, Any], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augmentation(options)(*scan, (6, 18, 15), (3.0, 0.8, 0.8), [seed])


@pytest.mark.parametrize("name", SETS)
def test_every_set_gives_contiguous_float32_and_bytes(scan: tuple[np.ndarray, np.ndarray], name: str) -> None:
    options = compose("train", ["stage=coarse", f"augmentation={name}"])["data"]["augmentation"]
    image, label = vary(scan, {key: {**step, "prob": 1.0} for key, step in options.items()})
    for tensor, kind in ((image, torch.float32), (label, torch.uint8)):
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == kind
        assert tensor.shape == PATCH
        assert tensor.is_contiguous()
    assert -1 <= image.min() <= image.max() <= 1


def test_each_entry_of_the_full_set_changes_the_image(scan: tuple[np.ndarray, np.ndarray]) -> None:
    plain, label = vary(scan, {})
    for name, step in FULL.items():
        image, moved = vary(scan, surely(name), seed=1)
        assert not torch.equal(image, plain), name
        in_space = parse(AnyStep, step).on in ("flip", "warp")
        assert torch.equal(moved, label) != in_space, name


@pytest.mark.parametrize("name", ["flip", "affine", "elastic"])
def test_image_and_label_move_together(scan: tuple[np.ndarray, np.ndarray], name: str) -> None:
    image, label = vary(scan, surely(name), seed=3)
    hu = (image + 1) * 200 - 100
    # Half a voxel of a nearest neighbor is at most 15 HU here.
    assert hu[label == 0].max() < 100 + 15
    assert hu[label == 2].min() > 160 - 15
    assert set(label.unique().tolist()) <= {0, 1, 2}


def test_labels_are_never_mixed(scan: tuple[np.ndarray, np.ndarray]) -> None:
    label = np.where(scan[1] > 0, 7, 0).astype(np.uint8)
    for seed in range(3):
        _, moved = vary((scan[0], label), {**surely("affine"), **surely("elastic")}, seed)
        assert set(moved.unique().tolist()) == {0, 7}


def test_a_flip_mirrors_and_swaps_nothing(scan: tuple[np.ndarray, np.ndarray]) -> None:
    (plain, label), (image, moved) = vary(scan, {}), vary(scan, surely("flip"))
    assert torch.equal(image, plain.flip(2))
    assert torch.equal(moved, label.flip(2))


def draw(seed: int, patch: tuple[int, int, int], spacing: tuple[float, float, float], **arguments: Any) -> Any:
    affine = transforms.RandAffine(prob=1.0, **arguments)
    affine.set_random_state(state=State([seed]))
    return Warp(affine, None, patch).draw(spacing)


def test_an_affine_warp_of_cubes_is_that_of_monai(scan: tuple[np.ndarray, np.ndarray]) -> None:
    arguments = {"rotate_range": [0.3, 0.1, 0.1], "scale_range": [0.1, 0.2, 0.2]}
    whole = scan[0].shape
    warped, labels = draw(5, whole, CUBES, **arguments).read(*scan, (0, 0, 0))
    monai = transforms.RandAffine(prob=1.0, padding_mode="zeros", **arguments)
    inside = (slice(7, 13), slice(18, 42), slice(15, 35))
    for array, ours, mode, tolerance in ((scan[0], warped, "bilinear", 0.01), (scan[1], labels, "nearest", 0.001)):
        monai.set_random_state(state=State([5]))
        monai.randomize()
        theirs = monai(array[None].astype(np.float32), mode=mode, randomize=False)[0].as_tensor()
        difference = (ours[inside].float() - theirs[inside]).abs()
        assert difference.max() < tolerance if mode == "bilinear" else (difference > 0).float().mean() < tolerance


def test_a_deformation_moves_as_far_as_that_of_monai() -> None:
    """Places are known exactly where an image holds its own coordinates."""
    patch = (9, 17, 17)
    deform = transforms.RandSmoothDeform(spatial_size=None, rand_size=[3, 5, 5], prob=1.0, def_range=0.2)
    deform.set_random_state(state=State([4]))
    columns = np.broadcast_to(np.arange(17, dtype=np.float32), patch).copy()
    window = Warp(None, deform, patch).draw(CUBES)
    moved, _ = window.read(np.pad(columns, 4, mode="edge"), np.zeros((17, 25, 25), np.uint8), (4, 4, 4))
    field = deform.sfield.field[0, 2]  # along x, in halves of the patch, at control points that are 4 voxels apart in z, y and x
    places = columns[::4, ::4, ::4] + field.numpy() * 17 / 2
    np.testing.assert_allclose(moved.numpy()[::4, ::4, ::4], places.clip(0, 16), atol=1e-3)


def test_a_tilt_is_a_rotation_in_millimeters() -> None:
    """About y by 0.1 rad with slices 5 mm apart: 40 pixels of 1 mm along x are 4 mm, which is 0.8 of a slice."""
    patch = (3, 3, 81)
    window = draw(0, patch, (5.0, 1.0, 1.0), rotate_range=[0.0, [0.1, 0.1], 0.0])
    slices = np.broadcast_to(np.arange(41, dtype=np.float32)[:, None, None] * 10, (41, 43, 121)).copy()
    tilted, _ = window.read(slices, np.zeros(slices.shape, np.uint8), (19, 20, 20))
    rise = (tilted[1, 1, 80] - tilted[1, 1, 0]).abs() / 10
    assert float(rise) == pytest.approx(80 * np.sin(0.1) / 5, abs=1e-3)


def test_turning_brings_no_padding_into_a_patch() -> None:
    scan = np.full((60, 90, 90), 50, np.int16), np.ones((60, 90, 90), np.uint8)
    options = {**surely("affine", rotate_range=[0.8, 0.3, 0.3], scale_range=[0.3, 0.3, 0.3]), **surely("elastic")}
    for seed in range(10):
        image, label = augmentation(options)(*scan, (26, 33, 35), (3.0, 0.8, 0.8), [seed])
        assert torch.allclose(image, torch.tensor(-0.25), atol=1e-5)
        assert (label == 1).all()


def test_beyond_the_scan_a_turned_patch_holds_air(scan: tuple[np.ndarray, np.ndarray]) -> None:
    image, label = augmentation(surely("affine"))(*scan, (6, 18, 60), CUBES, [0])
    assert (image[:, :, -8:] == -1).all()
    assert (label[:, :, -8:] == 0).all()


def test_blur_and_low_resolution_stay_within_slices() -> None:
    hu = np.random.default_rng(0).integers(-100, 300, (20, 60, 50)).astype(np.int16)
    other = hu.copy()
    other[10] = 100
    for name in ("blur", "low_resolution"):
        (a, _), (b, _) = (vary((volume, np.zeros_like(volume, np.uint8)), surely(name)) for volume in (hu, other))
        assert torch.equal(a[:4], b[:4])
        assert torch.equal(a[5:], b[5:])
        assert not torch.equal(a[4], b[4])


def test_intensities_change_in_hu_before_the_window() -> None:
    scan = np.full((20, 60, 50), 400, np.int16), np.zeros((20, 60, 50), np.uint8)
    image, _ = vary(scan, surely("shift", offsets=[-200, -200]))
    assert torch.allclose(image, torch.tensor(0.5))  # 200 HU; after the window it would have been -1 and below


def test_the_light_set_varies_hu_as_it_says() -> None:
    """Scale and shift are uniform, and the noise's deviation too; flips are fair."""
    light = compose("train", ["stage=fine"])["data"]["augmentation"]
    hu = np.full((4, 64, 64), 100, np.int16)
    label = np.broadcast_to(np.arange(64) > 31, hu.shape).astype(np.uint8)
    augment = augmentation(light, (4, 64, 64), (-1000, 1000))
    drawn = [augment(hu, label, (0, 0, 0), CUBES, [seed]) for seed in range(300)]
    means = np.array([float(image.mean()) * 1000 for image, _ in drawn])
    deviations = np.array([float(image.std()) * 1000 for image, _ in drawn])
    flips = np.mean([bool(labels[0, 0, 0]) for _, labels in drawn])
    assert abs(means.mean() - 100) < 4 * 13 / np.sqrt(300)
    assert means.std() == pytest.approx(np.sqrt((10**2 + 20**2) / 3), rel=0.15)
    assert deviations.mean() == pytest.approx(5, rel=0.2)
    assert 9 < deviations.max() < 10.5
    assert abs(flips - 0.5) < 4 * 0.5 / np.sqrt(300)


def test_probabilities_are_kept(scan: tuple[np.ndarray, np.ndarray]) -> None:
    augment = augmentation(surely("shift", prob=0.3))
    plain = vary(scan, {})[0]
    changed = [not torch.equal(augment(*scan, (6, 18, 15), CUBES, [seed])[0], plain) for seed in range(400)]
    assert abs(np.mean(changed) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)
    assert not augmentation(surely("shift", prob=0.0)).options


def test_no_global_random_state_is_used(scan: tuple[np.ndarray, np.ndarray]) -> None:
    everything = {name: {**step, "prob": 1.0} for name, step in FULL.items()}
    np.random.seed(0)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    first = vary(scan, everything)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(torch_before, torch.get_rng_state())
    np.random.seed(1)
    torch.manual_seed(1)
    again = vary(scan, everything)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], vary(scan, everything, seed=1)[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"flip": {"transform": "os.system", "prob": 1.0}}, r"flip\.transform=os\.system: give one of RandFlip"),
        ({"flip": {"prob": 1.0}}, r"^augmentation\.flip\.transform=null: give one of"),
        ({"flip": {"transform": ["RandFlip"]}}, r"^augmentation\.flip\.transform=\[RandFlip\]: give one of"),
        (None, r"^augmentation=null: give keys with values"),
        ({"flip": 0.5}, r"^augmentation\.flip=0\.5: give keys with values"),
        (
            surely("noise", device="cuda"),
            r"^augmentation\.noise\.device: no such key; there are mean, prob, sample_std",
        ),
        (surely("noise", prob=1.5), r"^augmentation\.noise\.prob=1\.5: give a number of at least 0 and of at most 1"),
        (surely("noise", std="much"), r"^augmentation\.noise\.std=much: give a number"),
        (surely("affine", rotate_range=0.2), r"^augmentation\.affine\.rotate_range=0\.2: .*\[z, y, x\]"),
        ({"shift": {"transform": "RandShiftIntensity", "prob": 1.0}}, r"^augmentation\.shift\.offsets: no value given"),
        ({"shift": {"transform": "RandShiftIntensity", "offsets": 2}}, r"^augmentation\.shift\.prob: no value given"),
        ({**surely("affine"), "b": FULL["affine"]}, r"^augmentation\.b\.transform=RandAffine: named twice"),
    ],
)
def test_a_configuration_can_name_nothing_else(options: dict[str, Any], text: str) -> None:
    with pytest.raises(KitsError, match=text) as error:
        parse(Schema, options, "augmentation")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def loading(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The small tree with every augmentation at an even chance."""
    config = compose("train", ["stage=fine", "augmentation=full", "split=paper", "model.out_indices=[0,1]", "model.widths=[4,4]"])
    config["data"].update(root=str(kits_tree), cache=str(tmp_path_factory.mktemp("cache")), coarse_size=32, workers=1)
    config["data"].update(roi_rule={"count": 2, "min_voxels": 100})
    config["data"]["augmentation"] = {name: {**step, "prob": 0.5} for name, step in FULL.items()}
    config["sampling"].update(patch=[8, 24, 24], patches_per_epoch=6, batch_size=1)
    prepare(config["data"])
    return config


def epochs(config: dict[str, Any], workers: int) -> Iterator[dict[str, torch.Tensor]]:
    data = {**config["data"], "loader_workers": workers}
    loader = data_of({**config, "data": data}).train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        yield from loader


def test_the_number_of_workers_changes_nothing_in_any_epoch(loading: dict[str, Any]) -> None:
    alone = list(epochs(loading, 0))
    assert len(alone) == 12
    assert all(batch["label"].dtype == torch.uint8 and batch["label"].is_contiguous() for batch in alone)
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(alone[:6], alone[6:], strict=True))
    for workers in (1, 2):
        for a, b in zip(alone, epochs(loading, workers), strict=True):
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["label"], b["label"])
