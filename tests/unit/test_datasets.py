"""Patches: where they come from, what they hold, and that a seed decides them."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.stage import CoarseSampling, FineSampling
from kits.core.errors import KitsError
from kits.data.datasets import CoarseWindows, RoiPatches, allow_open_maps, foreground_voxel
from kits.training.datamodule import EpochSampler
from kits.volume.hu import normalise
from kits.volume.rois import Box
from tests.conftest import data_of, prepare, training_options


@pytest.fixture(scope="module")
def config(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The fine stage's real configuration on the small tree, without augmentation."""
    config = compose("train", ["stage=fine", "split=paper", "model.out_indices=[0,1]", "model.widths=[4,4]"])
    config["data"].update(root=str(kits_tree), cache=str(tmp_path_factory.mktemp("cache")), coarse_size=32, loader_workers=0)
    config["data"].update(workers=1, roi_rule={"count": 2, "min_voxels": 100})
    config["data"]["augmentation"] = {}
    config["sampling"].update(patch=[8, 24, 24], patches_per_epoch=12, tumor=1.0)
    prepare(config["data"])
    return config


def patches(config: dict, **sampling: object) -> list[dict[str, torch.Tensor]]:
    changed = {**config, "sampling": {**config["sampling"], **sampling}}
    dataset = data_of(changed).train_dataloader().dataset
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


def shares(config: dict, count: int, **sampling: object) -> list[str]:
    """What lies in the middle of many patches that are one voxel large: `kidney`, `tumor` or `background`."""
    data = data_of(config)
    sampled = parse(FineSampling, {**config["sampling"], **sampling, "patch": [1, 1, 1]})
    dataset = RoiPatches(data.cases["train"], data.options.data, sampled, 0)
    names = ("background", "kidney", "tumor")
    return [names[int(dataset[position]["label"][0, 0, 0])] for position in range(count)]


def test_shares_of_tumor_and_kidney_are_those_of_the_configuration(config: dict) -> None:
    # A patch of one voxel is the voxel that it was drawn around. Four standard deviations of a share of 600 are 0.08.
    elsewhere = {"around": 1.0, "around_mm": 500}  # anywhere in the scan: kidney fills about a twentieth of it
    drawn = shares(config, 600, tumor=0.3, kidney=0.0, **elsewhere)
    assert 0.3 - 0.08 < drawn.count("tumor") / 600 < 0.33 + 0.08
    drawn = shares(config, 600, tumor=0.3, kidney=0.5, **elsewhere)
    assert 0.8 - 0.08 < 1 - drawn.count("background") / 600 < 0.83 + 0.08
    assert 0.45 - 0.08 < drawn.count("kidney") / 600 < 0.53 + 0.08
    assert "background" not in shares(config, 100, tumor=0.0, kidney=1.0)


def test_a_box_without_foreground_gives_its_middle(config: dict) -> None:
    case = data_of(config).cases["train"][0]
    case.boxes = [Box((0, 0, 0), (4, 6, 8))]
    np.testing.assert_array_equal(foreground_voxel(case, np.random.default_rng(0)), [2, 3, 4])


def test_the_share_of_windows_around_the_kidneys_is_that_of_the_configuration(config: dict) -> None:
    sampling = {"patch": [1, 32, 32], "foreground": 0.7, "patches_per_epoch": 400, "batch_size": 1}
    dataset = CoarseWindows(data_of(config).cases["train"], training_options(config).data, parse(CoarseSampling, sampling), 0)
    kidney = {case.id: (case.kidney_slices[1] - case.kidney_slices[0] + 1) / case.shape[0] for case in dataset.cases}
    chance = 0.7 + 0.3 * float(np.mean(list(kidney.values())))
    found = np.mean([bool((dataset[position]["label"] > 0).any()) for position in range(400)])
    assert abs(found - chance) < 4 * np.sqrt(chance * (1 - chance) / 400)


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


def test_every_case_is_drawn_equally_often(config: dict) -> None:
    dataset = data_of(config).train_dataloader().dataset
    drawn = [dataset.choose_case(position).id for position in range(12)]  # type: ignore[attr-defined]
    assert len(set(drawn)) == 3
    assert all(drawn.count(case) == 4 for case in drawn)


def coarse(config: dict, **sampling: object) -> dict:
    """The coarse stage on the same cache."""
    whole = compose("train", ["stage=coarse", "model.width=4", "model.depth=2"])
    return {**whole, "data": config["data"], "sampling": {"batch_size": 1, **sampling}}


def test_coarse_windows_are_whole_slices_around_the_kidneys(config: dict) -> None:
    for patch in patches(coarse(config, patch=[6, 32, 32], foreground=1.0, patches_per_epoch=8)):
        assert patch["image"].shape == (1, 6, 32, 32)
        assert (patch["label"] > 0).any()


def test_a_window_longer_than_the_scan_is_padded_with_air(config: dict) -> None:
    for patch in patches(coarse(config, patch=[32, 32, 32], foreground=0.5, patches_per_epoch=2)):
        assert (patch["image"][0, 20:] == -1).all()
        assert (patch["label"][20:] == 0).all()


def test_normalising_clips_to_the_window_and_scales_to_one() -> None:
    hu = np.array([-3024, -100, 100, 300, 2000], dtype=np.int16)
    np.testing.assert_allclose(normalise(hu, (-100, 300)), [-1, -1, 0, 1, 1])


def test_a_large_data_set_may_keep_all_its_maps_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_open_maps(489)  # KiTS23
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(4 * 489, before[1])
        allow_open_maps(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(4 * 489, before[1]), "never lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("in_worker", [True, False])
def test_a_refusal_by_a_worker_is_the_line_that_it_is_without_workers(
    config: dict, monkeypatch: pytest.MonkeyPatch, in_worker: bool
) -> None:
    refusal = "case_00000/label.npy: damaged (has labels that are no class); delete it"

    def read(loader: DataLoader) -> Iterator[dict]:
        try:
            raise KitsError(refusal)
        except KitsError:
            if in_worker:  # as torch hands it from a worker's process to this one
                ExceptionWrapper(where="in DataLoader worker process 0").reraise()
            raise
        yield {}

    loader = data_of(config).train_dataloader()
    monkeypatch.setattr(DataLoader, "__iter__", read)
    with pytest.raises(KitsError) as caught:
        list(loader)
    assert str(caught.value) == refusal
