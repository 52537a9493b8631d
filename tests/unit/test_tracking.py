"""What a training logs, read back from what it left: W&B's offline file, TensorBoard's events, CSV files."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kits.config.composing import compose
from kits.core.labels import KITS19_CLASSES
from kits.runs.resuming import Start
from kits.tracking.loggers import build_loggers
from kits.tracking.names import (
    CASES,
    COARSE_SCORES,
    CONFUSION,
    CONFUSION_TABLE,
    DATA_WAIT,
    GRADIENT_NORM,
    LEARNING_RATE,
    LOSS,
    OVERLAYS,
    SAMPLE_RATE,
    SURFACES,
    fine_scores,
    loss_name,
    loss_names,
    score_name,
)
from kits.train import train
from tests.conftest import prepare, training_options

STEP_NAMES = (LEARNING_RATE, GRADIENT_NORM, SAMPLE_RATE, DATA_WAIT)
COMMON = [
    "split=paper",
    "data.roi_rule.min_voxels=100",
    "data.coarse_size=32",
    "data.workers=1",
    "data.loader_workers=0",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
    "sampling.batch_size=1",
    "sampling.patches_per_epoch=4",
    "inference.window=20",
    "roi.min_voxels=10",
    "logger.images_every=2",
    "logger.image_cases=1",
]
FINE = [
    "stage=fine",
    "sampling.patch=[4,32,32]",
    "model.sources=[{backbone:test_efficientnet,weights:null},{backbone:test_efficientnet,weights:null}]",
    "model.out_indices=[0,1]",
    "model.widths=[4,4]",
    "model.width=4",
    "model.stem_width=2",
    "model.freeze_statistics=false",
]
COARSE = ["stage=coarse", "sampling.patch=[8,32,32]", "model.width=4", "model.depth=2", "loss=dice_ce"]


def train_here(folder: Path, tree: Path, *overrides: str) -> Path:
    """Train in a folder; its run."""
    common = [*COMMON, f"data.root={tree}", f"data.cache={folder / 'cache'}", f"run_dir={folder / 'run'}"]
    stage = next(override for override in overrides if override.startswith("stage="))
    if stage == "stage=fine":
        common.remove("roi.min_voxels=10")
    config = compose("train", [*common, *overrides])
    prepare(config["data"])
    train(training_options(config))
    return folder / "run"


@pytest.fixture(scope="module", autouse=True)
def here_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key and no settings of the machine's user; what W&B stores beside its runs goes to a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        folder = tmp_path_factory.mktemp("wandb")
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("NETRC", str(folder / "netrc"))
        yield


class Offline:
    """An offline run as W&B's own reader shows it."""

    def __init__(self, run_dir: Path) -> None:
        (self.folder,) = (run_dir / "wandb").glob("offline-run-*")
        (file,) = self.folder.glob("*.wandb")
        reader = "import sys; from wandb.cli.cli import cli; sys.argv[0] = 'wandb'; cli()"
        done = subprocess.run(
            [sys.executable, "-c", reader, "leet", "inspect", "--json", str(file)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        self.records = [json.loads(line) for line in done.stdout.splitlines()]
        self.rows = [record["history"]["item"] for record in self.records if record["type"] == "history"]
        (self.run,) = [record["run"] for record in self.records if record["type"] == "run"]

    def series(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]

    def of(self, name: str, part: str) -> list[Any]:
        """A part of what a rich object's record says."""
        return [row[f"{name}.{part}"] for row in self.rows if f"{name}.{part}" in row]

    def table(self, name: str) -> dict[str, Any]:
        (path,) = self.of(name, "path")
        return json.loads((self.folder / "files" / path).read_text(encoding="utf-8"))

    @property
    def names(self) -> set[str]:
        """Every name that was logged; a rich object's fields are its own."""
        keys = {key for row in self.rows for key in row}
        return {key.partition(".")[0] for key in keys if "/" in key}


@pytest.fixture(scope="module")
def fine(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine training with W&B, which is offline because there is no key."""
    folder = tmp_path_factory.mktemp("fine")
    logger = ["logger=wandb", "logger.group=sweep7", "logger.run_name='lr=1'", "logger.artifacts=true"]
    return train_here(folder, kits_tree, *FINE, *logger)


@pytest.fixture(scope="module")
def offline(fine: Path) -> Offline:
    return Offline(fine)


@pytest.fixture(scope="module")
def coarse(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse training with TensorBoard."""
    return train_here(tmp_path_factory.mktemp("coarse"), kits_tree, *COARSE, "logger=tensorboard")


def metrics(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_wandb_holds_every_name_and_nothing_else(offline: Offline) -> None:
    losses = loss_names(2, ("dice", "ce"))
    scalars = {*losses, *STEP_NAMES, *map(score_name, fine_scores(KITS19_CLASSES))}
    assert offline.names == {*scalars, OVERLAYS, SURFACES, CASES, CONFUSION_TABLE, "trainer/global_step"}
    for name in scalars:
        values = offline.series(name)
        assert len(values) == (4 if name.startswith("train/") else 2), name
        assert all(math.isfinite(value) for value in values), name


def test_the_run_has_its_name_group_stage_and_configuration(offline: Offline) -> None:
    run = offline.run
    assert (run["run_group"], run["display_name"], run["job_type"], run["project"]) == ("sweep7", "lr=1", "fine", "kits")
    assert len(run["run_id"]) == 8
    updates = [record["config"]["update"] for record in offline.records if record["type"] == "config"]
    assert next(update["optimizer"]["lr"] for update in updates if "optimizer" in update) == 1e-3


def test_the_parts_of_the_loss_add_up_to_it(offline: Offline) -> None:
    for row in (row for row in offline.rows if LOSS in row):
        sources = row[loss_name("source0")] + row[loss_name("source1")]
        assert row[LOSS] == pytest.approx(row[loss_name("fused")] + 0.5 * sources, rel=1e-4)
        assert row[loss_name("fused")] == pytest.approx(row[loss_name("dice")] + row[loss_name("ce")], rel=1e-4)


def test_steps_are_measured(offline: Offline) -> None:
    assert offline.series(LEARNING_RATE) == pytest.approx([1e-3] * 4)
    assert all(value > 0 for value in [*offline.series(GRADIENT_NORM), *offline.series(SAMPLE_RATE)])
    assert all(0 < share < 1 for share in offline.series(DATA_WAIT))


def test_the_same_case_is_drawn_every_second_epoch(fine: Path, offline: Offline) -> None:
    shown = json.loads((fine / "manifest.json").read_text(encoding="utf-8"))["split"]["validation"][0]
    assert offline.of(OVERLAYS, "captions") == [[shown]]
    ((path,),) = offline.of(OVERLAYS, "filenames")
    from matplotlib.image import imread

    picture = imread(offline.folder / "files" / path)
    assert picture.shape[1] == 1500
    assert picture.std() > 0.1, "a picture of something"


def test_truth_and_prediction_are_points_in_3d(offline: Offline) -> None:
    (objects,) = offline.of(SURFACES, "objects")
    points = np.array(json.loads((offline.folder / "files" / objects[0]["path"]).read_text(encoding="utf-8")))
    assert points.shape[1] == 6
    assert len(np.unique(points[:, 3:], axis=0)) >= 2, "kidney and tumor have colors of their own"
    # The scan is 96 mm wide: the truth lies beside the prediction.
    assert np.ptp(points[:, 0]) > 50


def test_every_case_is_in_the_table_the_worst_first(fine: Path, offline: Offline) -> None:
    table = offline.table(CASES)
    assert table["columns"] == ["case", *fine_scores(KITS19_CLASSES)]
    split = json.loads((fine / "manifest.json").read_text(encoding="utf-8"))["split"]["validation"]
    assert sorted(row[0] for row in table["data"]) == sorted(split)
    scores = [row[1] for row in table["data"]]
    assert scores == sorted(scores)
    assert np.mean(scores) == pytest.approx(max(offline.series(score_name("score"))))
    with (fine / "cases.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == [row[0] for row in table["data"]]


def test_the_confusion_counts_every_voxel_of_the_true_labels(fine: Path, offline: Offline) -> None:
    table = offline.table(CONFUSION_TABLE)
    assert table["columns"] == ["truth", "prediction", "voxels"]
    cache = fine.parent / "cache"
    index = json.loads((cache / "index.json").read_text(encoding="utf-8"))["cases"]
    labels = [np.load(cache / index[row[0]]["folder"] / "label.npy") for row in offline.table(CASES)["data"]]
    for label, name in ((1, "kidney"), (2, "tumor")):
        counted = sum(row[2] for row in table["data"] if row[0] == name)
        assert counted == sum(int((case == label).sum()) for case in labels)
    visualized = [
        r for r in offline.records if r["type"] == "config" and f"_wandb.visualize.{CONFUSION}" in r["config"]["update"]
    ]
    assert len(visualized) == 1, "a confusion matrix, not a table alone"


def test_model_and_split_are_artifacts(offline: Offline) -> None:
    artifacts = {record["artifact"]["type"]: record["artifact"] for record in offline.records if record["type"] == "artifact"}
    assert [entry["path"] for entry in artifacts["model"]["manifest"]["contents"]] == ["best.ckpt"]
    assert [entry["path"] for entry in artifacts["split"]["manifest"]["contents"]] == ["manifest.json"]


def test_csv_has_the_same_scalars(fine: Path, offline: Offline) -> None:
    rows = metrics(fine)
    for name in (*loss_names(2, ("dice", "ce")), *STEP_NAMES, *map(score_name, fine_scores(KITS19_CLASSES))):
        assert [row[name] for row in rows if name in row] == pytest.approx(offline.series(name)), name


def test_tensorboard_has_the_same_scalars_and_the_pictures(coarse: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(coarse / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    names = {LOSS, loss_name("dice"), loss_name("ce"), *STEP_NAMES, *map(score_name, COARSE_SCORES)}
    tags = events.Tags()
    assert names <= set(tags["scalars"])
    rows = metrics(coarse)
    for name in names:
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([row[name] for row in rows if name in row], rel=1e-5), name
    shown = json.loads((coarse / "manifest.json").read_text(encoding="utf-8"))["split"]["validation"][0]
    assert tags["images"] == [f"{OVERLAYS}/{shown}"]
    assert events.Images(tags["images"][0])[0].width == 1500
    assert any(tag.startswith(CASES) for tag in tags["tensors"])
    assert not list(coarse.glob("wandb*"))


def loggers_of(name: str, run_dir: Path, *overrides: str, **start: Any) -> list[Any]:
    """What a run in a folder logs to."""
    return build_loggers(
        training_options([*COMMON, *COARSE, f"logger={name}", f"run_dir={run_dir}", *overrides]), Start(run_dir, **start)
    )


def test_a_resumed_run_goes_on_in_its_files_and_under_its_id(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = loggers_of("tensorboard", tmp_path)
    for log in first:
        for step in (1, 2, 3):
            log.log_metrics({"train/loss": float(step)}, step)
        log.finalize("failed")
    # Killed after a checkpoint behind whose two rows a third stood in the file.
    again = loggers_of("tensorboard", tmp_path, rows=2, step=3)
    for log in again:
        log.log_metrics({"train/loss": 30.0, "val/score": 0.5}, 3)
        log.finalize("success")
    assert [row["train/loss"] for row in metrics(tmp_path)] == [1, 2, 30]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [1, 2, 30]
    log = loggers_of("wandb", tmp_path, rows=2, step=3, wandb_id="0a1b2c3d")[1]
    log.log_metrics({"train/loss": 4.0}, 4)
    log.finalize("success")
    assert Offline(tmp_path).run["run_id"] == "0a1b2c3d"


def test_a_run_that_begins_anew_leaves_nothing_of_the_older_one(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        for log in loggers_of("tensorboard", tmp_path):
            log.log_metrics({"train/loss": loss}, 1)
            log.finalize("success")
    assert metrics(tmp_path) == [{"step": 1, "train/loss": 2}]
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1


def test_a_users_own_logger_stands_beside_ours(kits_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of Lightning's, of which the training knows nothing, is told of every number; tables go to those that take them."""
    from pytorch_lightning.loggers import CSVLogger

    own = CSVLogger(tmp_path / "own", name=None, version="mine")
    monkeypatch.setattr("kits.tracking.loggers.build_loggers", lambda *given: [*build_loggers(*given), own])
    run = train_here(tmp_path, kits_tree, *COARSE, "trainer.max_epochs=1")
    with (tmp_path / "own/mine/metrics.csv").open() as file:
        losses = [float(row[LOSS]) for row in csv.DictReader(file) if row[LOSS]]
    assert losses == pytest.approx([row[LOSS] for row in metrics(run) if LOSS in row])
    assert (run / "cases.csv").exists()


def test_no_key_where_one_is_needed_is_one_line_and_an_offline_run(tmp_path: Path, capsys) -> None:
    log = loggers_of("wandb", tmp_path, "logger.mode=online", "logger.timeout_s=1")[1]
    for step in (1, 2):
        log.log_metrics({LOSS: 1.0}, step)
    log.finalize("success")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B: ")]
    assert len(said) == 1
    assert "sends it later" in said[0]
    assert Offline(tmp_path).series(LOSS) == [1, 1]


def test_calls_that_fail_are_said_once(tmp_path: Path, capsys) -> None:
    log = loggers_of("wandb", tmp_path, "logger.artifacts=true")[1]
    log.log_metrics({LOSS: 1.0}, 1)
    log.log_image(OVERLAYS, [np.zeros((0, 0, 7))], step=1, caption=["case_00000"])
    log.log_metrics({LOSS: 2.0}, 2)
    log.finalize("success")  # there is no best.ckpt to store
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B: ")]
    assert len(said) == 1
    assert "some of this run is not logged there" in said[0]
    assert Offline(tmp_path).series(LOSS) == [1, 2], "what can be logged is"


@pytest.mark.slow  # W&B tries for ten seconds to check the key
def test_a_server_that_is_down_stops_nothing(kits_tree: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    began = time.monotonic()
    run = train_here(tmp_path, kits_tree, *COARSE, "logger=wandb", "logger.timeout_s=1", "trainer.max_epochs=1")
    assert time.monotonic() - began < 60
    assert (run / "best.ckpt").exists()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B: ")]
    assert len(said) == 1
    assert "sends it later" in said[0]
    assert Offline(run).series(LOSS), "what the server does not get stays here"
