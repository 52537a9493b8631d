"""KiTS21 and KiTS23 beside KiTS19: from the tree to a label map with cysts, and what is refused on the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.core.labels import CLASSES
from kits.inference.segmenter import Segmenter
from kits.io import read_labels, write_labels
from kits.metrics.folder_scores import evaluate, find_truths
from kits.training.modules import CoarseModule, FineModule
from tests.conftest import data_of, ellipsoid, kidney_pair, prepare, training_options, write_case
from tests.predicting import run as predict

SIZE = ["data.coarse_size=32", "data.roi_rule.min_voxels=100", "data.workers=1"]
SAMPLING = ["data.loader_workers=0", "sampling.batch_size=2", "sampling.patches_per_epoch=4"]
LABEL_NAMES = {"kits21": "aggregated_MAJ_seg.nii.gz", "kits23": "segmentation.nii.gz"}
SMALL = {
    "coarse": [
        "sampling.patch=[20,32,32]",
        "model.widths=[4,8]",
        "model.strides=[[1,2,2],[2,2,2]]",
        "model.kernels=[[3,3,3],[3,3,3]]",
    ],
    "fine": [
        "sampling.patch=[8,32,32]",
        "sampling.tumor=1",
        "model.sources=[{backbone:test_efficientnet,weights:null}]",
        "model.out_indices=[0,1]",
        "model.widths=[8,8]",
        "model.width=8",
    ],
}


def cyst_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`kidney_pair` with a cyst of 10 HU at the edge of the right kidney."""
    hu, labels = kidney_pair(seed)
    cyst = ellipsoid(hu.shape, (hu.shape[0] / 2, hu.shape[1] / 2 - 7, hu.shape[2] * 3 / 10), (3, 4, 4))
    hu[cyst], labels[cyst] = 10, 3
    return hu, labels


def write_tree(root: Path, label_name: str) -> Path:
    """Three cases, of which the last has no cyst."""
    for number in range(3):
        folder = write_case(root, f"case_{number:05d}", *(kidney_pair(number) if number == 2 else cyst_pair(number)))
        (folder / "segmentation.nii.gz").rename(folder / label_name)
    return root


@pytest.fixture(scope="module", params=["kits21", "kits23"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tree(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp(name), LABEL_NAMES[name])


def prepare_tree(tree: Path, cache: Path, *overrides: str) -> None:
    """The real preparation, scaled to the small trees."""
    prepare(compose("prepare", [f"data.root={tree}", f"data.cache={cache}", *SIZE, *overrides])["data"])


def config_of(stage: str, tree: Path, cache: Path, *overrides: str) -> dict[str, Any]:
    """The real configuration of a stage, scaled to the small trees."""
    common = [f"stage={stage}", f"data.root={tree}", f"data.cache={cache}", *SIZE, *SAMPLING]
    return compose("train", [*common, *SMALL[stage], *overrides])


@pytest.fixture(scope="module")
def configs(name: str, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    cache = tmp_path_factory.mktemp("cache")
    prepare_tree(tree, cache, f"data={name}")
    return {stage: config_of(stage, tree, cache, f"data={name}") for stage in ("coarse", "fine")}


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_the_sets_differ_from_kits19_in_classes_file_name_and_test_set_alone(stage: str) -> None:
    kits19 = compose("train", [f"stage={stage}"])
    assert kits19["data"]["classes"] == ["background", "kidney", "tumor"]
    assert kits19["model"]["classes"] == (1 if stage == "coarse" else 3)
    for name, label_name in LABEL_NAMES.items():
        config = compose("train", [f"stage={stage}", f"data={name}"])
        assert config["model"] == {**kits19["model"], "classes": 1 if stage == "coarse" else 4}
        assert config["data"] == {**kits19["data"], "classes": list(CLASSES), "label_name": label_name, "unlabeled_from": None}


def test_the_cache_keeps_cysts_and_the_coarse_label_knows_them_as_foreground(configs: dict[str, dict[str, Any]]) -> None:
    data = data_of(configs["fine"])
    cases = {case.id: case for part in data.cases.values() for case in part}
    for case in cases.values():
        number = int(case.id[-5:])
        _, labels = kidney_pair(number) if number == 2 else cyst_pair(number)
        np.testing.assert_array_equal(case.label, labels)
        assert len(case.boxes) == 2
        assert (np.asarray(case.label)[tuple(case.tumor_points.T)] == 2).all()
    halves = (cyst_pair(0)[1] > 0).reshape(20, 32, 2, 32, 2).mean((2, 4)) >= 0.5
    np.testing.assert_array_equal(np.asarray(cases["case_00000"].coarse_label) > 0, halves)


def test_a_training_step_teaches_the_fine_network_the_cyst(configs: dict[str, dict[str, Any]]) -> None:
    torch.manual_seed(0)
    module = FineModule(training_options(configs["fine"]), pretrained=False)
    module.log_losses = lambda parts, size: parts["total"]  # type: ignore[method-assign, assignment]  # wants a trainer
    batch = next(iter(data_of(configs["fine"]).train_dataloader()))
    batch["label"][:] = 3
    loss = module.training_step(batch, 0)
    loss.backward()
    assert torch.isfinite(loss)
    head = module.network.fusion.head  # type: ignore[union-attr]
    assert head.weight.shape[0] == 4
    assert (head.bias.grad > 0).tolist() == [True, True, True, False], "more of the cyst and less of all else lowers the loss"


def test_validation_scores_the_cyst_and_the_mean_over_three_regions(configs: dict[str, dict[str, Any]]) -> None:
    module = FineModule(training_options(configs["fine"]), pretrained=False).eval()
    everywhere(module, 3)
    case = data_of(configs["fine"]).cases["train"][0]
    scores = module.examine(case).scene.scores
    boxes = np.zeros(case.shape, bool)
    for box in case.boxes:
        boxes[box.grow_mm(10, case.spacing, case.shape).slices] = True
    labels = np.asarray(case.label)
    assert scores["kidney"] == pytest.approx(2 * (labels > 0).sum() / (boxes.sum() + (labels > 0).sum()))
    assert scores["cyst"] == pytest.approx(2 * (labels == 3).sum() / (boxes.sum() + (labels == 3).sum()))
    assert scores["tumor"] == 0
    assert scores["score"] == scores["mean"] == pytest.approx((scores["kidney"] + scores["cyst"]) / 3)
    assert scores["composite"] == pytest.approx(scores["kidney"] / 2)


def everywhere(module: FineModule, label: int) -> None:
    """Make the network call every voxel this label."""
    with torch.no_grad():
        module.network.fusion.head.bias[label] = 1e4  # type: ignore[union-attr,operator]


def save(module: CoarseModule | FineModule, path: Path) -> Path:
    """A checkpoint as Lightning writes it, as far as `load_network` reads it."""
    torch.save({"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()}, path)
    return path


def test_a_four_class_checkpoint_writes_cysts_and_their_volume(
    configs: dict[str, dict[str, Any]], tree: Path, tmp_path: Path
) -> None:
    coarse, fine = (
        CoarseModule(training_options(configs["coarse"]), pretrained=False),
        FineModule(training_options(configs["fine"]), pretrained=False),
    )
    everywhere(fine, 3)
    checkpoints = [f"coarse={save(coarse, tmp_path / 'coarse.ckpt')}", f"fine={save(fine, tmp_path / 'fine.ckpt')}"]
    predict(*checkpoints, f"input={tree}", "cases=0", f"output={tmp_path / 'out'}")
    labels = read_labels(tmp_path / "out" / "case_00000.nii.gz", allowed=(0, 3)).array
    assert (labels == 3).any()
    volumes = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["cases"]["case_00000"]["volumes_ml"]
    found = round(float((labels == 3).sum()) * 4.0 * 1.5 * 1.5 / 1000, 2)
    assert volumes == {"kidney": found, "tumor": 0, "cyst": found}


def test_a_three_class_checkpoint_reports_no_cyst(kits_tree: Path, tmp_path: Path) -> None:
    fine = FineModule(training_options(config_of("fine", kits_tree, tmp_path)), pretrained=False)
    coarse = CoarseModule(training_options(config_of("coarse", kits_tree, tmp_path)), pretrained=False)
    segmenter = Segmenter.load(save(coarse, tmp_path / "coarse.ckpt"), save(fine, tmp_path / "fine.ckpt"), "cpu")
    assert segmenter.classes == ["background", "kidney", "tumor"]


def test_kits19_refuses_a_tree_with_cysts_and_says_what_to_add(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", "segmentation.nii.gz")
    with pytest.raises(
        KitsError, match=r"case_00000.*label values 3 are not among 0 background, 1 kidney, 2 tumor; correct the label map"
    ):
        prepare_tree(tree, tmp_path / "cache")


def test_training_refuses_a_cache_with_cysts_that_it_cannot_learn(
    name: str, tree: Path, configs: dict[str, dict[str, Any]]
) -> None:
    three = config_of("fine", tree, Path(configs["fine"]["data"]["cache"]))
    with pytest.raises(KitsError, match=r"was prepared with data\.classes=\[.*cyst\], this run asks for .*,tumor\]; give"):
        data_of(three)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=kits23", "model.classes=3"], r"model\.classes=3: the data set has 4 classes"),
        (["data.classes=[background,kidney,cyst]"], r"data\.classes=\[background,kidney,cyst\]: .*fixed meaning"),
    ],
)
def test_classes_that_do_not_fit_are_named(overrides: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(KitsError, match=words):
        training_options(config_of("fine", tmp_path, tmp_path, *overrides))


@pytest.mark.parametrize("knows", ["truth", "prediction", "both"])
def test_a_cyst_counts_as_kidney_whichever_side_knows_it(tmp_path: Path, knows: str) -> None:
    _, labels = cyst_pair(0)
    plain = np.where(labels == 3, 1, labels).astype(np.uint8)
    truth, found = (labels if knows != "prediction" else plain), (labels if knows != "truth" else plain)
    folder = write_case(tmp_path / "truth", "case_00000", labels.astype(np.int16), truth)
    grid = read_labels(folder / "segmentation.nii.gz", allowed=range(4)).grid
    write_labels(tmp_path / "found" / "case_00000.nii.gz", found, grid)
    given = [f"prediction={tmp_path / 'found'}", f"truth={tmp_path / 'truth'}", f"output={tmp_path / 'out'}"]
    table = evaluate(checked("evaluate", [*given, f"data={'kits19' if knows == 'prediction' else 'kits23'}"]))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["kidney"] == summary["tumor"] == summary["composite"] == 1
    assert summary.get("cyst") == {"truth": 0, "prediction": None, "both": 1}[knows]
    if knows == "truth":  # the tumor's voxels of the masses are found, the cyst's are not
        tumor, cyst = ((labels == label).sum() for label in (2, 3))
        assert summary["masses"] == pytest.approx(2 * tumor / (2 * tumor + cyst))
    assert ("cyst" in table) == ("cyst" in summary)
    header = (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8").splitlines()[0]
    dice = "kidney,tumor,composite" if knows == "prediction" else "kidney,masses,tumor,cyst,composite,hec"
    assert header.startswith(f"case,{dice},kidney_surface_dice,")


def test_evaluation_names_the_data_set_that_a_truth_needs(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", LABEL_NAMES["kits21"])
    with pytest.raises(KitsError, match="data=kits21"):
        find_truths(tree, None, "segmentation.nii.gz")
    assert len(find_truths(tree, None, LABEL_NAMES["kits21"])) == 3
