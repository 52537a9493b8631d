"""Patches: where they come from, what they hold, and that a seed decides them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kits.cli import compose
from kits.data.datamodule import EpochSampler, KitsDataModule
from kits.data.preparation import prepare
from kits.data.transforms import apply_gamma, augment
from kits.intensity import normalise


@pytest.fixture(scope="module")
def config(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The fine stage's real configuration on the small tree, without augmentation."""
    config = compose("train", ["stage=fine", "split=paper"])
    config["data"].update(root=str(kits_tree), cache=str(tmp_path_factory.mktemp("cache")), coarse_size=32, loader_workers=0)
    config["data"].update(workers=1, roi_rule={"count": 2, "min_voxels": 100})
    config["data"]["augmentation"] = {"flip": 0.0, "scale": 0.0, "shift_hu": 0.0, "noise_hu": 0.0, "gamma": 0.0}
    config["sampling"].update(patch=[8, 24, 24], patches_per_epoch=12, tumor=1.0)
    prepare(config["data"])
    return config


def patches(config: dict, **sampling: object) -> list[dict[str, torch.Tensor]]:
    changed = {**config, "sampling": {**config["sampling"], **sampling}}
    dataset = KitsDataModule(changed).train_dataloader().dataset
    return [dataset[position] for position in range(len(dataset))]  # type: ignore[arg-type]


def test_a_fine_patch_asked_for_tumor_holds_tumor(config: dict) -> None:
    for patch in patches(config):
        assert patch["image"].shape == (1, 8, 24, 24)
        assert patch["label"].shape == (8, 24, 24)
        assert (patch["label"] == 2).any()
        assert -1 <= patch["image"].min() <= patch["image"].max() <= 1


def test_some_patches_show_what_lies_beside_the_kidneys(config: dict) -> None:
    inside = patches(config, tumor=0.0, around=0.0, jitter_mm=0.0, patch=[4, 8, 8], patches_per_epoch=24)
    around = patches(config, tumor=0.0, around=1.0, patch=[4, 8, 8], patches_per_epoch=24)
    assert sum((patch["label"] > 0).any().item() for patch in inside) == 24
    assert 0 < sum((patch["label"] > 0).any().item() for patch in around) < 20


def test_image_and_label_of_a_patch_belong_together(config: dict) -> None:
    for patch in patches(config):
        hu = (patch["image"][0] + 1) * 200 - 100
        assert hu[patch["label"] == 1].mean() == pytest.approx(180, abs=5)
        assert hu[patch["label"] == 2].mean() == pytest.approx(60, abs=5)


def test_a_seed_decides_every_patch_and_epochs_differ(config: dict) -> None:
    first, again = patches(config), patches(config)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    other = patches({**config, "seed": 1})
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))
    sampler = EpochSampler(12)
    one = list(sampler)
    sampler.set_epoch(1)
    assert not set(one) & set(sampler)


def test_the_number_of_workers_changes_nothing(config: dict) -> None:
    alone = KitsDataModule(config).train_dataloader()
    data = {**config["data"], "loader_workers": 1}
    helped = KitsDataModule({**config, "data": data}).train_dataloader()
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


def test_every_case_is_drawn_equally_often(config: dict) -> None:
    dataset = KitsDataModule(config).train_dataloader().dataset
    drawn = [dataset.case_of(position).id for position in range(12)]  # type: ignore[attr-defined]
    assert len(set(drawn)) == 3
    assert all(drawn.count(case) == 4 for case in drawn)


def test_coarse_windows_are_whole_slices_around_the_kidneys(config: dict) -> None:
    sampling = {"patch": [6, 32, 32], "foreground": 1.0, "patches_per_epoch": 8, "batch_size": 1}
    coarse = {**config, "stage": "coarse", "sampling": sampling}
    for patch in patches(coarse):
        assert patch["image"].shape == (1, 6, 32, 32)
        assert (patch["label"] > 0).any()


def test_a_window_longer_than_the_scan_is_padded_with_air(config: dict) -> None:
    coarse = {
        **config,
        "stage": "coarse",
        "sampling": {"patch": [32, 32, 32], "foreground": 0.5, "patches_per_epoch": 2, "batch_size": 1},
    }
    for patch in patches(coarse):
        assert (patch["image"][0, 20:] == -1).all()
        assert (patch["label"][20:] == 0).all()


def test_normalising_clips_to_the_window_and_scales_to_one() -> None:
    hu = np.array([-3024, -100, 100, 300, 2000], dtype=np.int16)
    np.testing.assert_allclose(normalise(hu, (-100, 300)), [-1, -1, 0, 1, 1])


def test_augmentation_moves_image_and_label_together() -> None:
    rng = np.random.default_rng(0)
    hu = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    options = {"flip": 1.0, "scale": 0.0, "shift_hu": 0.0, "noise_hu": 0.0, "gamma": 0.0}
    image, label = augment(hu, hu.astype(np.uint8), rng, options)
    np.testing.assert_array_equal(image, hu[:, :, ::-1])
    np.testing.assert_array_equal(label, hu[:, :, ::-1])
    noisy, label = augment(hu, hu.astype(np.uint8), rng, {**options, "flip": 0.0, "noise_hu": 10.0, "shift_hu": 5.0})
    assert not np.array_equal(noisy, hu)
    np.testing.assert_array_equal(label, hu)


def test_gamma_keeps_the_ends() -> None:
    bent = apply_gamma(np.array([-1, -0.2, 1], dtype=np.float32), np.random.default_rng(3), 0.5)
    assert bent[0] == -1
    assert bent[2] == 1
    assert bent[1] != np.float32(-0.2)
