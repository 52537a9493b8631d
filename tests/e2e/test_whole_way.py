"""The whole way on small volumes: prepare, train both stages, predict, evaluate; each step's files feed the next."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.inference.segmenter import Segmenter
from kits.models.checkpoint import load_network
from kits.train import train
from tests.conftest import kidney_pair, prepare, training_options, write_case
from tests.predicting import run as predict

SMALL = [
    "data.coarse_size=32",
    "data.roi_rule.min_voxels=100",
    "split=paper",
    "data.workers=1",
    "data.loader_workers=0",
    "augmentation=none",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "sampling.batch_size=1",
]
COARSE = [
    "stage=coarse",
    "sampling.patch=[20,32,32]",
    "sampling.patches_per_epoch=12",
    "trainer.max_epochs=2",
    "optimizer.lr=0.01",
    "model.widths=[4,8]",
    "model.strides=[[1,2,2],[2,2,2]]",
    "model.kernels=[[3,3,3],[3,3,3]]",
]
FINE = [
    "stage=fine",
    "sampling.patch=[8,32,32]",
    "sampling.patches_per_epoch=16",
    "trainer.max_epochs=2",
    "model.sources=[{backbone:tf_efficientnet_lite0,weights:null}]",
    "model.out_indices=[0,1]",
    "model.widths=[8,8]",
    "model.width=8",
    "model.freeze_statistics=false",
    "optimizer.lr=0.003",
]


@pytest.fixture(scope="module")
def runs(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages trained on the small tree; run folders `coarse` and `fine`, cache beside them."""
    folder = tmp_path_factory.mktemp("runs")
    common = [*SMALL, f"data.root={kits_tree}", f"data.cache={folder / 'cache'}"]
    for stage, overrides in (("coarse", COARSE), ("fine", FINE)):
        config = compose("train", [*overrides, *common, f"run_dir={folder / stage}"])
        prepare(config["data"])
        train(training_options(config))
    return folder


def test_a_run_folder_tells_how_it_was_made(runs: Path) -> None:
    for stage in ("coarse", "fine"):
        assert {path.name for path in (runs / stage).iterdir()} >= {"best.ckpt", "last.ckpt", "metrics.csv", "manifest.json"}
        manifest = json.loads((runs / stage / "manifest.json").read_text(encoding="utf-8"))
        assert len(manifest["split"]["train"]) == 3
        assert manifest["data_hash"] == json.loads((runs / "cache" / "index.json").read_text(encoding="utf-8"))["data_hash"]
        assert manifest["seconds"] > 0
        with (runs / stage / "metrics.csv").open() as stream:
            scores = [row["val/score"] for row in csv.DictReader(stream) if row["val/score"]]
        assert len(scores) == 2


def test_a_checkpoint_is_weights_and_plain_configuration(runs: Path) -> None:
    content = torch.load(runs / "fine" / "best.ckpt", weights_only=True)
    assert content["hyper_parameters"]["stage"] == "fine"
    json.dumps(content["hyper_parameters"])
    network, settings = load_network(runs / "fine" / "best.ckpt", "fine", "cpu")
    assert not network.training
    assert settings.model.sources[0].backbone == "tf_efficientnet_lite0"


def test_an_unseen_case_is_segmented_in_its_own_grid_and_scored(runs: Path, tmp_path: Path) -> None:
    from kits.config.schema import parse
    from kits.config.schema.commands import Evaluate
    from kits.metrics.folder_scores import evaluate

    hu, labels = kidney_pair(77)
    folder = write_case(tmp_path / "cases", "case_00077", hu, labels)
    checkpoints = [f"{stage}={runs / stage / 'best.ckpt'}" for stage in ("coarse", "fine")]
    predict(*checkpoints, f"input={tmp_path / 'cases'}", f"output={tmp_path / 'predictions'}")
    target = tmp_path / "predictions" / "case_00077.nii.gz"

    image, result = nibabel.load(folder / "imaging.nii.gz"), nibabel.load(target)
    np.testing.assert_array_equal(image.affine, result.affine)
    assert image.shape == result.shape
    assert set(np.unique(np.asarray(result.dataobj))) <= {0, 1, 2}

    report = json.loads((tmp_path / "predictions" / "report.json").read_text(encoding="utf-8"))["cases"]["case_00077"]
    assert report["boxes"]
    assert set(report["seconds"]) == {"read", "coarse", "fine", "postprocess", "write"}

    scored = [
        f"prediction={tmp_path / 'predictions'}",
        f"truth={tmp_path / 'cases'}",
        f"output={tmp_path / 'scores'}",
        "workers=1",
    ]
    evaluate(parse(Evaluate, compose("evaluate", scored)))
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text(encoding="utf-8"))
    assert summary["cases"] == 1
    assert summary["kidney"] > 0.7, "two epochs on ellipsoids of 180 HU in fat find them"
    assert summary["composite"] == pytest.approx((summary["kidney"] + summary["tumor"]) / 2)


def test_an_empty_coarse_mask_is_reported_and_the_whole_body_is_looked_at(runs: Path, tmp_path: Path) -> None:
    from kits.io import read_volume

    volume = read_volume(write_case(tmp_path, "case_00000", *kidney_pair(5)) / "imaging.nii.gz")
    content = torch.load(runs / "coarse" / "best.ckpt", weights_only=True)
    content["state_dict"]["network.head.bias"] -= 100  # a coarse network that sees nothing
    torch.save(content, tmp_path / "blind.ckpt")
    result = Segmenter.load(tmp_path / "blind.ckpt", runs / "fine" / "best.ckpt", "cpu").segment(volume)
    assert any("the coarse stage found no region" in warning for warning in result.warnings)
    assert len(result.boxes) == 1
    assert result.labels.shape == volume.array.shape


def test_checkpoints_that_do_not_belong_are_refused_in_one_line(runs: Path, tmp_path: Path) -> None:
    coarse, fine = runs / "coarse" / "best.ckpt", runs / "fine" / "best.ckpt"
    with pytest.raises(KitsError, match="swapped"):
        Segmenter.load(fine, coarse, "cpu")
    with pytest.raises(KitsError, match="no such checkpoint"):
        Segmenter.load(tmp_path / "none.ckpt", fine, "cpu")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(coarse.read_bytes()[:1000])
    with pytest.raises(KitsError, match=r"cannot be opened|not a checkpoint"):
        Segmenter.load(broken, fine, "cpu")
    with pytest.raises(KitsError, match="device=nonsense"):
        Segmenter.load(coarse, fine, "nonsense")


def test_a_hostile_checkpoint_runs_nothing(runs: Path, tmp_path: Path) -> None:
    import os
    import pickle

    witness = tmp_path / "witness"

    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(witness),)

    path = tmp_path / "hostile.ckpt"
    torch.save({"hyper_parameters": {"kits_format": 1}, "state_dict": Hostile()}, path, pickle_module=pickle)
    with pytest.raises(KitsError, match="safely"):
        load_network(path, "coarse", "cpu")
    content = torch.load(runs / "coarse" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["model"]["name"] = "os.system"
    torch.save(content, path)
    with pytest.raises(KitsError, match=r"model\.name=os\.system"):
        load_network(path, "coarse", "cpu")
    assert not witness.exists()
