"""Trainings that begin with another run's weights: what they take, what is new, what stays still, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.data.cache import file_digest
from kits.data.roi_boxes import with_boxes, write_boxes
from kits.models.checkpoint import open_checkpoint
from kits.runs.folder import resumed_options
from kits.train import train
from kits.training.fine_tuning import read_parent
from tests.conftest import prepare
from tests.unit.test_runs import FINE, TINY

SHORT = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def places(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A prepared cache of the small tree, of both stages."""
    given = [f"data.root={kits_tree}", f"data.cache={tmp_path_factory.mktemp('cache') / 'cache'}"]
    prepare(compose("train", [*TINY, *given])["data"])
    return given


@pytest.fixture(scope="module")
def parent(places: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine run to begin with."""
    folder = tmp_path_factory.mktemp("parent") / "run"
    train(checked("train", [*FINE, *places, *SHORT, "training=parallel", f"run_dir={folder}"]))
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return open_checkpoint(path)["state_dict"]


def still(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], part: str) -> bool:
    names = [name for name in before if part in name and name in after and "running" not in name and "num_batches" not in name]
    assert names
    return all(torch.equal(before[name], after[name]) for name in names)


def test_weights_provenance_and_cases_come_from_the_parent_and_the_encoder_stays_still(
    places: list[str], parent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, best = tmp_path / "run", parent / "best.ckpt"
    keep = f"+callbacks.keep={{_target_:pytorch_lightning.callbacks.ModelCheckpoint,dirpath:'{tmp_path}',save_top_k:-1}}"
    given = [*FINE, *places, "training=parallel", f"init={parent}", f"run_dir={run}", "trainer.enable_progress_bar=false", keep]
    train(checked("train", [*given, "freeze_epochs=1", "trainer.max_epochs=2", "optimizer.lr=0.01"]))
    assert "tensors; new: none" in capfd.readouterr().out
    first, second = (weights(next(tmp_path.glob(f"epoch={epoch}-*.ckpt"))) for epoch in (0, 1))
    assert still(weights(best), first, "sources.0.encoder.features")
    assert not still(weights(best), first, "fusion.head")
    assert not still(first, second, "sources.0.encoder.features")

    again = resumed_options([f"resume={run}", "trainer.max_epochs=3"])
    assert again is not None
    train(again)
    theirs = open_checkpoint(best)["hyper_parameters"]["trained_on"]
    expected = {"path": str(best), "sha256": file_digest(best), "trained_on": theirs, "new": []}
    config = open_checkpoint(run / "last.ckpt")["hyper_parameters"]
    assert config["parent"] == expected
    assert json.loads((run / "manifest.json").read_text(encoding="utf-8"))["parent"] == expected


def test_other_classes_get_new_heads_that_learn_at_their_own_rate(
    places: list[str], parent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cysts = ["data.classes=[background,kidney,tumor,cyst]", "training=parallel", "optimizer.init_factor=0.1", "optimizer.lr=0.01"]
    run, own = tmp_path / "run", [*FINE, places[0], f"data.cache={tmp_path / 'cache'}", *SHORT, *cysts]
    prepare(compose("train", own)["data"])
    train(checked("train", [*own, f"init={parent / 'best.ckpt'}", f"run_dir={run}"]))
    said = capfd.readouterr().out
    new = ["sources.0.head.weight", "sources.0.head.bias", "fusion.head.weight", "fusion.head.bias"]
    assert f"new: {', '.join(new)}" in said
    last = open_checkpoint(run / "last.ckpt")
    rates = {len(group["params"]): group["lr"] for group in last["optimizer_states"][0]["param_groups"]}
    assert rates.pop(4) == 0.01
    assert list(rates.values()) == [pytest.approx(0.001)]
    assert last["state_dict"]["network.fusion.head.weight"].shape[0] == 4


def test_a_validation_case_that_the_parent_learned_from_is_named_and_never_out_of_fold(
    places: list[str], parent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(parent / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["trained_on"] = [*content["hyper_parameters"]["trained_on"], "elsewhere_1", "case_00002"]
    torch.save(content, tmp_path / "other.ckpt")
    run = tmp_path / "run"
    train(checked("train", [*FINE, *places, *SHORT, "training=parallel", f"init={tmp_path / 'other.ckpt'}", f"run_dir={run}"]))
    assert "1 validation cases were learned from there, and score too well: case_00002" in capfd.readouterr().out
    config = open_checkpoint(run / "best.ckpt")["hyper_parameters"]
    assert set(config["trained_on"]) == {"case_00000", "case_00001", "case_00002", "case_00003", "elsewhere_1"}

    records = index_of(places)
    used: dict[str, Any] = {"a.ckpt": {"sha256": "", "trained_on": ["elsewhere_1"], "by_parent": ["elsewhere_1"]}}
    cases = {
        case: {
            "checkpoint": "a.ckpt",
            "shape": record["shape"],
            "spacing": record["spacing"],
            "boxes_mm": [[[0, 0, 0], [4, 6, 6]]],
        }
        for case, record in records.items()
    }
    write_boxes(tmp_path / "boxes.json", used, cases)
    assert set(with_boxes(records, tmp_path / "boxes.json")) == set(records)
    used["a.ckpt"]["by_parent"] = []
    write_boxes(tmp_path / "boxes.json", used, cases)
    with pytest.raises(KitsError, match="trained on elsewhere_1, which this cache does not hold"):
        with_boxes(records, tmp_path / "boxes.json")


def index_of(places: list[str]) -> dict[str, Any]:
    cache = Path(places[1].partition("=")[2])
    cases: dict[str, Any] = json.loads((cache / "index.json").read_text(encoding="utf-8"))["cases"]
    return cases


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["model.widths=[4,8]"],
            r"init=.*best\.ckpt: was trained with model\.widths=\[4,4\], and here it is \[4,8\]; .*",
        ),
        (["model.operator=zconv"], r"init=.*: was trained with model\.operator=p3d, and here it is zconv; give the same, or .*"),
        (
            ["data.window_hu=[-200,300]"],
            r"init=.*: was trained with data\.window_hu=\[-100,300\], and here it is \[-200,300\]; .*",
        ),
        (["freeze_epochs=1"], r"freeze_epochs=1: the encoders would never learn, trainer\.max_ep.*"),
        (["init=nowhere"], r"init=nowhere: no such checkpoint; give a run folder with .*"),
        (["init=null", "optimizer.init_factor=0.1"], r"optimizer\.init_factor=0\.1: is for what init=RUN_FOLDER gives; .*"),
    ],
)
def test_a_parent_that_does_not_fit_is_one_line_before_anything_is_written(
    places: list[str], parent: Path, tmp_path: Path, given: list[str], told: str
) -> None:
    own = [*FINE, *places, *SHORT, "training=parallel", f"init={parent}", *given, f"run_dir={tmp_path / 'run'}"]
    # A cache of another window is refused first, so the parent is asked alone there.
    begin = read_parent if given[0].startswith("data.window_hu") else train
    with pytest.raises(KitsError, match=f"^{told}$"):
        begin(checked("train", own))
    assert not (tmp_path / "run").exists()


def test_a_parent_of_the_other_stage_is_one_line(places: list[str], parent: Path, tmp_path: Path) -> None:
    own = [*TINY, *places, *SHORT, f"init={parent}", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(KitsError, match=r"best\.ckpt: is of the fine stage, and this one is coarse; give one of this stage$"):
        train(checked("train", own))
