"""Two folds, a coarse network for each, the ROIs that each finds in the other's cases, and a fine training on those."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kits.config.composing import checked, compose
from kits.config.schema import parse
from kits.config.schema.commands import Boxes
from kits.core.errors import KitsError
from kits.data.cache import file_digest
from kits.data.roi_boxes import choose_checkpoints, to_mm, to_voxels
from kits.inference.coarse import find_rois_in
from kits.inference.members import Members
from kits.io import read_volume
from kits.prediction.out_of_fold import predict_out_of_fold
from kits.prediction.segmenting import refuse_leaks
from kits.train import train
from kits.volume.rois import Box, coverage
from tests.conftest import data_of, kidney_pair, prepare, training_options, write_case
from tests.e2e.test_whole_way import COARSE, FINE, SMALL

CASES = [f"case_{number:05d}" for number in range(4)]
TINY = [*(override for override in SMALL if not override.startswith("split=")), "sampling.patches_per_epoch=12"]


@pytest.fixture(scope="module")
def folder(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of two folds, runs `coarse0` and `coarse1`, and `oof/boxes.json`."""
    folder = tmp_path_factory.mktemp("folds")
    for fold in (0, 1):
        config = compose(
            "train",
            training(folder, kits_tree, COARSE, f"run_dir={folder}/coarse{fold}", f"fold={fold}", "split=folds", "split.k=2"),
        )
        prepare(config["data"])
        train(training_options(config))
    predict_out_of_fold(prediction(folder, kits_tree))
    return folder


def training(folder: Path, tree: Path, stage: list[str], *overrides: str) -> list[str]:
    return [*stage, *TINY, f"data.root={tree}", f"data.cache={folder}/cache", *overrides]


def prediction(folder: Path, tree: Path, *overrides: str) -> Boxes:
    both = f"coarse=[{folder}/coarse0/best.ckpt,{folder}/coarse1/best.ckpt]"
    given = [both, f"input={tree}", f"output={folder}/oof", "device=cpu", *overrides]
    options: Boxes = parse(Boxes, compose("boxes", given))
    return options


def fine(folder: Path, tree: Path, boxes: Path, *overrides: str) -> dict:
    return compose("train", training(folder, tree, FINE, "fold=0", "data.roi=oof", f"data.boxes={boxes}", *overrides))


def test_every_case_is_boxed_by_the_checkpoint_that_never_saw_it(folder: Path, kits_tree: Path) -> None:
    content = json.loads((folder / "oof" / "boxes.json").read_text(encoding="utf-8"))
    assert sorted(content["cases"]) == CASES
    parts = json.loads((folder / "cache" / "splits.json").read_text(encoding="utf-8"))["parts"]
    for fold, held_out in enumerate((parts["fold0"], parts["fold1"])):
        path = str(folder / f"coarse{fold}" / "best.ckpt")
        assert content["checkpoints"][path]["trained_on"] == parts[f"fold{1 - fold}"]
        assert content["checkpoints"][path]["sha256"] == file_digest(Path(path))
        assert [content["cases"][case]["checkpoint"] for case in held_out] == [path, path]
        assert torch.load(path, weights_only=True)["hyper_parameters"]["trained_on"] == parts[f"fold{1 - fold}"]
    for case in content["cases"].values():
        assert case["warnings"] == []
        assert case["coverage"]["kidney"] > 0.9, "two epochs on ellipsoids of 180 HU in fat find them"


def test_boxes_are_the_segmenters_own_in_mm_from_the_first_voxels_corner(folder: Path, kits_tree: Path) -> None:
    from kits.models.checkpoint import load_network

    found = json.loads((folder / "oof" / "boxes.json").read_text(encoding="utf-8"))["cases"]["case_00001"]
    volume = read_volume(kits_tree / "case_00001" / "imaging.nii.gz")
    network, settings = load_network(Path(found["checkpoint"]), "coarse", "cpu")
    boxes = find_rois_in(volume, Members([network]), settings, torch.device("cpu")).boxes
    assert [to_voxels(corners, volume.spacing) for corners in found["boxes_mm"]] == boxes
    assert found["coverage"]["kidney"] == pytest.approx(coverage(boxes, kidney_pair(1)[1] > 0), abs=1e-4)
    assert to_mm(Box((1, 2, 0), (3, 64, 10)), (4.0, 1.5, 0.75)) == [[4.0, 3.0, 0.0], [12.0, 96.0, 7.5]]


def test_the_fine_stage_trains_and_validates_on_them(folder: Path, kits_tree: Path) -> None:
    config = fine(folder, kits_tree, folder / "oof" / "boxes.json", f"run_dir={folder}/fine0", "trainer.max_epochs=1")
    found = json.loads((folder / "oof" / "boxes.json").read_text(encoding="utf-8"))["cases"]
    data = data_of(config)
    for case in [*data.cases["train"], *data.cases["validation"]]:
        assert case.boxes == [to_voxels(corners, case.spacing) for corners in found[case.id]["boxes_mm"]]
    assert data.train_dataloader().dataset.sampling.jitter_mm == 0  # type: ignore[attr-defined]
    train(training_options(config))
    assert torch.load(folder / "fine0" / "best.ckpt", weights_only=True)["hyper_parameters"]["data"]["roi"] == "oof"


def test_boxes_that_leak_or_do_not_belong_are_refused_in_one_line(folder: Path, kits_tree: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "oof" / "boxes.json").read_text(encoding="utf-8"))
    used = content["cases"]["case_00002"]["checkpoint"]

    def refusal(damage: Callable[[dict], object]) -> str:
        changed = copy.deepcopy(content)
        damage(changed)
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps(changed))
        with pytest.raises(KitsError) as caught:
            data_of(fine(folder, kits_tree, path))
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        return str(caught.value)

    leak = refusal(lambda boxes: boxes["checkpoints"][used]["trained_on"].append("case_00002"))
    assert f"the boxes of case_00002 come from {used}, which was trained on it" in leak
    foreign = refusal(lambda boxes: boxes["checkpoints"][used]["trained_on"].append("case_00300"))
    assert "trained on case_00300, which this cache does not hold" in foreign
    assert "no boxes of case_00001" in refusal(lambda boxes: boxes["cases"].pop("case_00001"))
    other = refusal(lambda boxes: boxes["cases"]["case_00003"].update(shape=[20, 64, 63]))
    assert "a file of another data set" in other
    assert "case_00003 is damaged" in refusal(lambda boxes: boxes["cases"]["case_00003"].pop("boxes_mm"))
    outside = refusal(lambda boxes: boxes["cases"]["case_00003"]["boxes_mm"][0].__setitem__(1, [84.0, 96.0, 96.0]))
    assert "leaves its scan" in outside
    assert "kits.boxes writes it" in refusal(lambda boxes: boxes.clear())


def test_validation_cases_that_a_checkpoint_was_trained_on_are_refused(folder: Path) -> None:
    coarse = torch.load(folder / "coarse0" / "best.ckpt", weights_only=True)["hyper_parameters"]
    refuse_leaks(set(CASES) - set(coarse["trained_on"]), "coarse", coarse["trained_on"])
    with pytest.raises(KitsError, match=f"coarse: .* trained on 1 .* first {coarse['trained_on'][0]}"):
        refuse_leaks(coarse["trained_on"][:1], "coarse", coarse["trained_on"])


def test_rois_of_another_name_or_without_a_file_are_refused() -> None:
    given = ["stage=fine", "data.cache=cache", "data.roi=oof", "data.boxes=boxes"]
    with pytest.raises(KitsError, match=r"data\.roi=truth: .*gt_jitter, oof"):
        checked("train", [*given, "data.roi=truth"])
    with pytest.raises(KitsError, match=r"data\.boxes: no value given"):
        checked("train", [*given, "data.boxes=null"])


def test_cases_that_no_checkpoint_may_predict_are_named() -> None:
    trained_on = {"a": ["case_00000", "case_00001"], "b": ["case_00001", "case_00002"]}
    assert choose_checkpoints(["case_00000", "case_00002", "case_00009"], trained_on) == {
        "case_00000": "b",
        "case_00002": "a",
        "case_00009": "a",
    }
    with pytest.raises(KitsError, match="trained on case_00001;"):
        choose_checkpoints(CASES, trained_on)


def test_an_older_checkpoint_and_other_misuse_are_one_line(folder: Path, kits_tree: Path, tmp_path: Path) -> None:
    content = torch.load(folder / "coarse0" / "best.ckpt", weights_only=True)
    del content["hyper_parameters"]["trained_on"]
    torch.save(content, tmp_path / "old.ckpt")
    for overrides, words in (
        ([f"coarse={tmp_path}/old.ckpt"], "does not say which cases"),
        ([f"coarse={folder}/coarse0/best.ckpt"], "every checkpoint given was trained on"),
        ([f"input={kits_tree}/case_00000/imaging.nii.gz"], "give a folder of cases"),
    ):
        with pytest.raises(KitsError, match=words):
            predict_out_of_fold(prediction(folder, kits_tree, *overrides))


def test_an_empty_coarse_mask_is_recorded_and_a_damaged_case_is_named(folder: Path, tmp_path: Path) -> None:
    content = torch.load(folder / "coarse0" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["roi"]["min_voxels"] = 10**6
    torch.save(content, tmp_path / "blind.ckpt")
    write_case(tmp_path / "tree", "case_00005", *kidney_pair(5))
    broken = write_case(tmp_path / "tree", "case_00006", *kidney_pair(6)) / "imaging.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(KitsError, match=r"1 of 2 inputs could not be read.*case_00006"):
        predict_out_of_fold(prediction(folder, tmp_path / "tree", f"coarse={tmp_path}/blind.ckpt", f"output={tmp_path}"))
    cases = json.loads((tmp_path / "boxes.json").read_text(encoding="utf-8"))["cases"]
    assert list(cases) == ["case_00005"]
    assert "found no region" in cases["case_00005"]["warnings"][0]
    assert cases["case_00005"]["whole_body"]
    assert len(cases["case_00005"]["boxes_mm"]) == 1
    assert cases["case_00005"]["coverage"] == {"kidney": 1.0, "tumor": 1.0}, "the whole body holds both kidneys"
    assert np.all(np.diff(cases["case_00005"]["boxes_mm"][0], axis=0) > 0)


def test_coverage_is_of_the_labels_that_a_data_sets_own_ids_mean(folder: Path, tmp_path: Path) -> None:
    content = torch.load(folder / "coarse0" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["data"]["labels"] = {"kidney": [1, 9], "tumor": [3]}
    torch.save(content, tmp_path / "own.ckpt")
    image, label = kidney_pair(5)
    own = label.copy()
    own[label == 1] = 9
    own[label == 2] = 3
    found = []
    for name, labels, checkpoint in (("kits", label, folder / "coarse0" / "best.ckpt"), ("own", own, tmp_path / "own.ckpt")):
        write_case(tmp_path / name, "patient_017", image, labels)
        predict_out_of_fold(prediction(folder, tmp_path / name, f"coarse={checkpoint}", f"output={tmp_path / name}"))
        found.append(json.loads((tmp_path / name / "boxes.json").read_text(encoding="utf-8"))["cases"]["patient_017"]["coverage"])
    assert found[0] == found[1]
