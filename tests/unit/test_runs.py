"""Runs that are killed and go on, runs that are asked to stop, and what their folders hold.

Trainings run in processes that fork from a server with everything imported, and are killed for good: by themselves, with SIGKILL,
at the moment that a test names.
"""

import csv
import functools
import json
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.data.datasets import Patches
from kits.models.checkpoint import load_network
from kits.runs.checkpointing import random_state, set_random_state
from kits.runs.folder import check_unused, read_config, read_manifest, resumed_options, settle
from kits.runs.manifest import command_line, config_hash
from kits.runs.metrics_file import MetricsFile
from kits.runs.resuming import Start, batches_done, seal, where_to_start
from kits.runs.resuming import begin as begin_folder
from kits.tracking.names import DATA_WAIT, SAMPLE_RATE
from kits.train import main, train
from kits.training.datamodule import EpochSampler
from tests.conftest import data_of, prepare, training_options

TINY = [
    "stage=coarse",
    "split=paper",
    "augmentation=light",
    "data.roi_rule.min_voxels=100",
    "data.coarse_size=32",
    "data.workers=1",
    "data.loader_workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "sampling.patch=[8,32,32]",
    "sampling.batch_size=1",
    "sampling.patches_per_epoch=5",
    "optimizer.lr=0.01",
    "model.widths=[4,8]",
    "model.strides=[[1,2,2],[2,2,2]]",
    "model.kernels=[[3,3,3],[3,3,3]]",
    "callbacks.checkpoint.every_steps=2",
]
FINE = [
    "stage=fine",
    *TINY[1:-4],
    "inference.window=20",
    "model.sources=[{backbone:test_efficientnet,weights:null}]",
    "model.out_indices=[0,1]",
    "model.widths=[4,4]",
    "model.width=4",
    "model.stem_width=2",
    "model.freeze_statistics=false",
    "training=staged",
    "staged_shares=[0.34,0.33]",
    "callbacks.checkpoint.every_steps=3",
]


def run_and_die(options, event: str, count: int, number: int, queue=None) -> None:
    """Train, and send this process a signal at an event's turn `count` (from 1); every step draws random numbers."""
    from kits.runs import checkpointing
    from kits.train import train
    from kits.training import modules

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it
    seen = 0

    def happens(what: str) -> bool:
        nonlocal seen
        seen += what == event
        return what == event and seen == count

    def at(what: str, function):
        @functools.wraps(function)
        def wrapped(*arguments, **options):
            if happens(what):
                os.kill(os.getpid(), number)
            return function(*arguments, **options)

        return wrapped

    def noisy(function):
        @functools.wraps(function)
        def wrapped(self, batch, index):
            noise = torch.rand(()).item() + random.random() + np.random.random()
            return function(self, {**batch, "image": batch["image"] + 0.1 * noise}, index)

        return wrapped

    for module in modules.MODULES.values():
        module.training_step = at("step", noisy(module.training_step))
    modules.StageModule.validation_step = at("validation", modules.StageModule.validation_step)
    write = torch.save

    def half(content, stream) -> None:
        write(content, stream)
        if happens("write"):
            stream.truncate(stream.tell() // 2)
            stream.flush()
            os.kill(os.getpid(), number)

    checkpointing.torch.save = half
    replace = os.replace

    def renamed(source, target) -> None:
        replace(source, target)
        if Path(target).suffix == ".ckpt" and happens("renamed"):
            os.kill(os.getpid(), number)

    os.replace = renamed
    train(options)


@pytest.fixture(scope="module")
def server():
    """Where the trainings fork from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "kits.train",
            "kits.training.callbacks",
            "kits.training.modules",
            "kits.training.datamodule",
            "monai.transforms",
            __name__,
        ]
    )
    return context


@pytest.fixture(scope="module")
def folder(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared cache, and room for run folders beside it."""
    folder = tmp_path_factory.mktemp("runs")
    prepare(compose("train", [*TINY, f"data.root={kits_tree}", f"data.cache={folder / 'cache'}"])["data"])
    return folder


@pytest.fixture(scope="module")
def begin(server, folder: Path):
    """Start a training in a run folder, or go on where it holds a run: (overrides, event, count, signal) -> process."""

    def start(target: Path, overrides: list[str], event: str = "", count: int = 0, number: int = signal.SIGKILL):
        if (target / "config.yaml").exists():
            options = resumed_options([f"resume={target}"])
        else:
            options = training_options([*overrides, f"data.cache={folder / 'cache'}", f"run_dir={target}"])
        process = server.Process(target=run_and_die, args=(options, event, count, number))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def fit(begin, folder: Path):
    """The same to its end: (run folder, exit code)."""

    def run(name: str, *arguments) -> tuple[Path, int]:
        process = begin(folder / name, *arguments)
        process.join(600)
        assert process.exitcode is not None
        return folder / name, process.exitcode

    return run


@pytest.fixture(scope="module")
def straight(fit) -> Path:
    """A run that nothing interrupted."""
    folder, code = fit("straight", TINY)
    assert code == 0
    return folder


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, counters, what callbacks remember, and every number that was logged."""
    first, second = (read(folder / "last.ckpt") for folder in (one, other))
    first["best"], second["best"] = (read(folder / "best.ckpt")["state_dict"] for folder in (one, other))
    for key in ("state_dict", "best", "optimizer_states", "lr_schedulers", "epoch", "global_step", "kits_run"):
        assert_equal(first[key], second[key], key)
    (stopping,) = ([state for key, state in content["callbacks"].items() if "EarlyStopping" in key] for content in (first,))
    assert stopping == [state for key, state in second["callbacks"].items() if "EarlyStopping" in key]
    assert logged_numbers(one) == logged_numbers(other)
    for table in ("cases.csv", "confusion.csv"):
        assert (one / table).read_text(encoding="utf-8") == (other / table).read_text(encoding="utf-8"), table


def logged_numbers(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what measures the machine."""
    return [{name: cell for name, cell in row.items() if name not in (SAMPLE_RATE, DATA_WAIT)} for row in rows(folder)]


def assert_equal(one, other, where: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}") if key != "seconds" else None
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


def test_a_run_that_was_killed_again_and_again_ends_as_one_that_never_was(fit, straight: Path) -> None:
    # Written are: last before step 2 and 4, last before the validation, best, last before the epoch, and so on.
    kills = [("step", 2), ("step", 4), ("write", 2), ("validation", 1), ("renamed", 2), ("write", 1), ("step", 3)]
    for event, count in kills:
        folder, code = fit("killed", TINY, event, count)
        assert code == -signal.SIGKILL, (event, count)
    folder, code = fit("killed", TINY)
    assert code == 0
    assert_same_run(straight, folder)
    assert not list(folder.glob(".*.ckpt"))
    manifest = read_manifest(folder)
    assert [(again["epoch"], again["batches"]) for again in manifest["resumed"]] == [
        (0, 0), (0, 2), (0, 4), (0, 5), (1, 0), (1, 0), (1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "event", "count", "code"),
    [(signal.SIGINT, "step", 8, 130), (signal.SIGTERM, "validation", 2, 143)],
)
def test_a_run_that_is_asked_to_stop_saves_at_that_step_and_goes_on(fit, straight, number, event, count, code) -> None:
    name = f"stopped-{event}-{code}"
    folder, ended = fit(name, [*TINY, "callbacks.checkpoint.every_steps=null"], event, count, number)
    assert ended == code
    content = read(folder / "last.ckpt")
    assert content["global_step"] == (count if event == "step" else 5 * count)
    assert read_manifest(folder)["finished"] is False
    with pytest.raises(KitsError, match=rf"run_dir=.*not finished; give resume={folder} to go on with it"):
        check_unused(folder)
    assert fit(name, TINY)[1] == 0
    assert_same_run(straight, folder)


@pytest.mark.slow
def test_staged_training_with_a_schedule_goes_on_within_its_phases(fit) -> None:
    overrides = [*FINE, "scheduler=cosine"]
    whole, code = fit("staged", overrides)
    assert code == 0
    for event, count in [("step", 5), ("write", 3), ("step", 3), ("validation", 1)]:
        folder, code = fit("staged-killed", overrides, event, count)
        assert code == -signal.SIGKILL, (event, count)
    assert fit("staged-killed", overrides)[1] == 0
    assert_same_run(whole, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(0, 8), (2, 2)])
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_never_was(
    begin, fit, folder: Path, workers: int, kills: int
) -> None:
    overrides = [*TINY, "sampling.patches_per_epoch=20", f"data.loader_workers={workers}", "augmentation=full"]
    whole, code = fit(f"whole{workers}", overrides)
    assert code == 0
    chance, target = random.Random(workers), folder / f"hunted{workers}"
    for _ in range(kills):
        process = begin(target, overrides)
        # Anywhere within the seven steps that follow the first rows, whatever is being written then.
        wanted, deadline = logged(target) + chance.randint(1, 7), time.monotonic() + 300
        while logged(target) < wanted and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while (left := users_of(folder / "cache")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "loaders' processes that outlive a killed training hold a GB each"
    assert fit(target.name, overrides)[1] == 0
    assert_same_run(whole, target)


def users_of(folder: Path) -> set[int]:
    """The processes, but for this one, that have a file of a folder open; on Linux, nowhere else are there any to see."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link).startswith(f"{folder}/"):
                found.add(int(link.parts[2]))
    return found - {os.getpid()}


def logged(folder: Path) -> int:
    """Lines of metrics.csv so far."""
    path = folder / "metrics.csv"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_a_folder_of_a_finished_run_tells_how_it_was_made(straight: Path, folder: Path) -> None:
    assert {path.name for path in straight.iterdir()} == {
        "config.yaml", "best.ckpt", "last.ckpt", "metrics.csv", "cases.csv", "confusion.csv", "manifest.json", ".lock",
    }  # fmt: skip
    manifest = json.loads((straight / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data_hash"] == json.loads((folder / "cache" / "index.json").read_text(encoding="utf-8"))["data_hash"]
    assert manifest["finished"] is True
    assert sorted(manifest["split"]["train"] + manifest["split"]["validation"]) == [f"case_{number:05d}" for number in range(4)]
    assert re.fullmatch("[0-9a-f]{40}", manifest["commit"]["id"])
    assert manifest["commit"]["dirty"] in (True, False)
    assert manifest["config_hash"] == config_hash(read_config(straight))
    assert manifest["command"].startswith("python ")
    assert (manifest["epochs"], manifest["steps"], manifest["seed"]) == (3, 15, 0)
    assert manifest["seconds"] > 0
    assert manifest["machine"]["cores"] >= 1
    assert 0.1 < manifest["peak_memory_gib"]["process"] < manifest["machine"]["memory_gib"]
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
    with pytest.raises(KitsError, match=r"holds a run already; give another run_dir=DIR, or overwrite=true"):
        check_unused(straight)


def test_the_hash_of_a_configuration_tells_of_the_training_and_not_of_its_folder(straight: Path) -> None:
    config = read_config(straight)
    assert config_hash({**config, "run_dir": "elsewhere", "overwrite": True}) == config_hash(config)
    assert config_hash({**config, "seed": 1}) != config_hash(config)


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["stage=fine", "model.sources=[{backbone: resnet18, weights: null}]", "run_dir=my runs/it's"]
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="kits.train")))
    assert shlex.split(command_line()) == ["python", "-m", "kits.train", *arguments]


def test_resume_on_the_command_line(straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """A finished run, moved to another place, goes on for another epoch and keeps its best one."""
    moved = tmp_path / "moved"
    shutil.copytree(straight, moved)
    before, scores = (
        (moved / "metrics.csv").read_text(encoding="utf-8"),
        [float(row["val/score"]) for row in rows(moved) if row["val/score"]],
    )

    def call(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["kits.train", *arguments])
        with suppress(SystemExit):
            main()
        out = capsys.readouterr()
        return out.out + out.err

    assert "ended in epoch 3, trainer.max_epochs=3; give trainer.max_epochs above 3" in call(f"resume={moved}")
    assert "optimizer.lr: cannot change in a run that goes on" in call(f"resume={moved}", "optimizer.lr=0.1")
    assert "give a whole number of 1 or more" in call(f"resume={moved}", "trainer.max_epochs=many")
    assert "no run to go on with" in call(f"resume={tmp_path / 'nothing'}")
    assert "resume=: no folder given" in call("resume=")
    said = call(f"resume={moved}", "trainer.max_epochs=4")
    assert (moved / "metrics.csv").read_text(encoding="utf-8").startswith(before)
    scores += [float(row["val/score"]) for row in rows(moved) if row["val/score"]][3:]
    assert len(scores) == 4
    assert f"best val/score {max(scores):.4f}: {moved / 'best.ckpt'}" in said
    manifest = read_manifest(moved)
    assert manifest["epochs"] == 4
    assert manifest["wandb_id"] == read_manifest(straight)["wandb_id"]
    assert manifest["seconds"] > read_manifest(straight)["seconds"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_what_is_no_longer_the_same_run_is_refused(straight: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(straight, copy)
    options = resumed_options([f"resume={copy}", "trainer.max_epochs=5"])
    data_hash = read(copy / "last.ckpt")["kits_run"]["data_hash"]
    assert where_to_start(options, data_hash).place["epoch"] == 3
    with pytest.raises(KitsError, match="other data than this run began with"):
        where_to_start(options, "another")
    with pytest.raises(KitsError, match=r"seed=7: the run in .* was trained with 0; set it back"):
        where_to_start(options.model_copy(update={"seed": 7}), data_hash)
    with pytest.raises(KitsError, match="a checkpoint of the coarse stage"):
        where_to_start(options.model_copy(update={"stage": "fine"}), data_hash)
    shutil.copy(copy / "best.ckpt", copy / "last.ckpt")
    with pytest.raises(KitsError, match="holds no state to go on from"):
        where_to_start(options, data_hash)
    (copy / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(KitsError, match="safely"):
        where_to_start(options, data_hash)
    (copy / "config.yaml").write_text("- a list")
    with pytest.raises(KitsError, match="not a training's"):
        resumed_options([f"resume={copy}"])


def test_a_run_that_lacks_keys_which_are_newer_goes_on_with_their_defaults(
    straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(straight, copy)
    config, content = read_config(copy), read(copy / "last.ckpt")
    for earlier in (config, content["hyper_parameters"]):
        del earlier["data"]["rois"], earlier["optimizer"]["init_factor"], earlier["roi"]["min_voxels"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    content["kits_seal"] = seal(content)
    torch.save(content, copy / "last.ckpt")
    options = resumed_options([f"resume={copy}", "trainer.max_epochs=4"])
    assert options is not None
    assert (options.data.rois, options.optimizer.init_factor, options.roi.min_voxels) == (None, 1.0, 100)  # data.roi_rule's
    assert capsys.readouterr().out.endswith(
        "goes on with the defaults: {data.rois:null,optimizer.init_factor:1.0,roi.min_voxels:100}\n"
    )
    assert where_to_start(options, content["kits_run"]["data_hash"]).place["epoch"] == 3
    other = options.model_copy(update={"optimizer": options.optimizer.model_copy(update={"init_factor": 0.5})})
    with pytest.raises(KitsError, match=r"optimizer\.init_factor=0\.5: the run in .* was trained with 1\.0; set it back"):
        where_to_start(other, content["kits_run"]["data_hash"])


def test_a_seal_tells_of_every_part_and_not_of_the_file(straight: Path, tmp_path: Path) -> None:
    content = read(straight / "last.ckpt")
    assert content["kits_seal"] == seal(content)
    torch.save(content, tmp_path / "again.ckpt")
    assert seal(read(tmp_path / "again.ckpt")) == seal(content)
    name = next(iter(content["state_dict"]))
    for change in (
        {"epoch": content["epoch"] + 1},
        {"epoch": float(content["epoch"])},
        {"state_dict": {**content["state_dict"], name: content["state_dict"][name].double()}},
        {"state_dict": {**content["state_dict"], name: content["state_dict"][name] + 1e-7}},
        {"lr_schedulers": []},
        {"another": None},
    ):
        assert seal({**content, **change}) != seal(content), change
    kinds = torch.ones(2, dtype=torch.bfloat16), torch.tensor(1.5), torch.zeros(0), torch.ones(2, 3).T
    assert len({seal({"tensor": kind}) for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("lost", ["loops", "kits_seal", "kits_run"])
def test_a_checkpoint_without_a_part_is_refused_and_does_not_begin_again(straight: Path, tmp_path: Path, lost: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    content = read(run / "last.ckpt")
    data_hash = content["kits_run"]["data_hash"]
    del content[lost]
    torch.save(content, run / "last.ckpt")
    with pytest.raises(KitsError, match=r"last\.ckpt: (damaged or edited|holds no state)"):
        where_to_start(resumed_options([f"resume={run}", "trainer.max_epochs=5"]), data_hash)
    (run / "last.ckpt").unlink()
    with pytest.raises(KitsError, match=r"has best\.ckpt and no last\.ckpt, so nothing to go on from; begin again"):
        where_to_start(resumed_options([f"resume={run}", "trainer.max_epochs=5"]), data_hash)
    assert (run / "best.ckpt").exists()


def test_a_run_goes_on_with_the_patience_that_is_given(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    train(resumed_options([f"resume={run}", "trainer.max_epochs=4", "callbacks.early_stopping.patience=9"]))
    (state,) = (state for key, state in read(run / "last.ckpt")["callbacks"].items() if key.startswith("EarlyStopping"))
    assert state["patience"] == 9


@pytest.mark.parametrize(
    ("before", "batches", "now", "done"),
    [(2, 50, 4, 25), (4, 50, 2, 100), (2, 150, 4, 75), (4, 25, 1, 100), (2, 200, 4, 100), (1, 400, 4, 100), (3, 7, 3, 7)],
)
def test_a_run_on_other_devices_draws_each_patch_of_the_epoch_once(before: int, batches: int, now: int, done: int) -> None:
    """400 patches, one a batch: what was drawn before and what is drawn then."""
    options = training_options([*TINY, "sampling.patches_per_epoch=400"])
    assert batches_done({"epoch": 2, "batches": batches, "ranks": before}, now, options) == done

    def positions(rank: int, ranks: int, done: int) -> list[int]:
        sampler = EpochSampler(400, rank, ranks, done={2: done})
        sampler.set_epoch(2)
        return list(sampler)

    drawn = [positions(rank, before, 0)[:batches] for rank in range(before)]
    drawn += [positions(rank, now, done) for rank in range(now)]
    assert sorted(position for own in drawn for position in own) == sorted(set(range(800, 800 + 400 // before * before)))


@pytest.mark.parametrize(
    ("before", "batches", "now", "overrides", "words"),
    [
        (2, 3, 4, [], "stopped within epoch 2, at no whole step of 4; go on with as many"),
        (2, 2, 4, ["+trainer.limit_train_batches=0.5"], "at no whole step"),
        (2, 2, 4, ["+trainer.limit_train_batches=1"], "at no whole step"),
        (2, 0, 4, ["scheduler=cosine"], "2, whose steps its schedule is laid out over; go on with as many"),
    ],
)
def test_a_run_that_cannot_go_on_exactly_on_other_devices_is_refused(before, batches, now, overrides, words) -> None:
    options = training_options([*TINY, "sampling.patches_per_epoch=400", *[one.lstrip("+") for one in overrides]])
    with pytest.raises(KitsError, match=words):
        batches_done({"epoch": 2, "batches": batches, "ranks": before}, now, options)


def test_a_run_of_two_processes_goes_on_with_one(fit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two processes would have saved it after two batches each: one goes on with the fifth patch."""
    run, code = fit(
        "two", [*TINY, "trainer=ddp", "trainer.devices=1", "trainer.max_epochs=1", "sampling.patches_per_epoch=8"], "step", 6
    )
    assert code == -signal.SIGKILL
    content = read(run / "last.ckpt")
    assert content["KitsDataModule"] == {"epoch": 0, "batches": 4, "ranks": 1}
    content["KitsDataModule"] |= {"batches": 2, "ranks": 2}
    counts = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    counts |= {part: dict.fromkeys(counts[part], 2) for part in ("total", "current")}
    content["kits_seal"] = seal(content)
    torch.save(content, run / "last.ckpt")
    drawn, draw = [], Patches.__getitem__

    def told(self: Patches, position: int):
        drawn.append(position)
        return draw(self, position)

    monkeypatch.setattr(Patches, "__getitem__", told)
    train(resumed_options([f"resume={run}"]))
    assert drawn == [4, 5, 6, 7]
    after = read(run / "last.ckpt")
    assert after["global_step"] == 8
    assert after["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"] == 8


def test_a_training_may_end_within_an_epoch_or_validate_every_other_one(folder: Path, tmp_path: Path) -> None:
    config = compose("train", [*TINY, f"data.cache={folder / 'cache'}", f"run_dir={tmp_path / 'run'}"])
    train(training_options({**config, "trainer": {**config["trainer"], "max_steps": 12, "check_val_every_n_epoch": 2}}))
    assert read(tmp_path / "run" / "last.ckpt")["global_step"] == 12
    assert (tmp_path / "run" / "best.ckpt").exists()


def test_workers_start_where_the_folder_for_temporary_files_has_a_long_name(tmp_path: Path) -> None:
    """94 characters, which leave a socket in it too few."""
    long = tmp_path / ("t" * max(1, 93 - len(str(tmp_path))))
    long.mkdir()
    code = (
        "import sys, tempfile, multiprocessing\n"
        "from kits.core.parallel import allow_long_folder\n"
        "assert tempfile.gettempdir() == sys.argv[1]\n"
        "allow_long_folder()\n"
        "assert tempfile.gettempdir() == sys.argv[1]\n"
        "context = multiprocessing.get_context('forkserver')\n"
        "process = context.Process(target=print, args=('started',))\n"
        "process.start(); process.join(); sys.exit(process.exitcode)\n"
    )
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code, str(long)], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


def test_a_run_that_its_time_ended_says_so_and_not_that_it_stopped_improving(folder: Path, tmp_path: Path) -> None:
    """The first step takes longer than a second of which none is left: Lightning ends the training, and no patience did."""
    config = compose("train", [*TINY, f"data.cache={folder / 'cache'}", f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=1000"])
    config["trainer"]["max_time"] = "00:00:00:01"
    train(training_options({**config, "callbacks": {**config["callbacks"], "early_stopping": {"patience": 1000}}}))
    data_hash = read(tmp_path / "run" / "last.ckpt")["kits_run"]["data_hash"]
    words = r"ended in epoch \d+, trainer\.max_time is over; begin a new run to train longer"
    with pytest.raises(KitsError, match=words):
        where_to_start(resumed_options([f"resume={tmp_path / 'run'}"]), data_hash)


def refused(options, rank: int, port: int, queue) -> None:
    """Train as one of two processes of torchrun, and tell what it ends with."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ.update({name: str(value) for name, value in {**names, **address}.items()})
    try:
        train(options)
    except KitsError as error:
        queue.put(str(error))


def test_processes_of_torchrun_hear_that_the_run_folder_is_taken(server, folder: Path, tmp_path: Path) -> None:
    """The first one alone asks for it; the second would wait for the first for half an hour."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    overrides = [*TINY, "trainer=ddp", "trainer.devices=2", f"data.cache={folder / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    options, queue = training_options(overrides), server.Queue()
    with begin_folder(Start(tmp_path / "run"), options):
        processes = [server.Process(target=refused, args=(options, rank, port, queue)) for rank in range(2)]
        for process in processes:
            process.start()
        told = {queue.get(timeout=120) for _ in processes}
        for process in processes:
            process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    (line,) = told
    assert line == f"run_dir={tmp_path / 'run'}: another kits.train is at work there; wait for it, or give another folder"


def test_a_checkpoint_of_a_clusters_requeue_is_no_beginning_of_a_new_run(tmp_path: Path) -> None:
    """Under SLURM Lightning would go on from it, whatever it is."""
    (tmp_path / "hpc_ckpt_3.ckpt").write_bytes(b"another program's")
    with pytest.raises(KitsError, match=r"holds a run already; give another run_dir=DIR, or overwrite=true"):
        check_unused(tmp_path)
    with begin_folder(Start(tmp_path), training_options([*TINY, f"run_dir={tmp_path}", "overwrite=true"])):
        assert not list(tmp_path.glob("*.ckpt"))


def test_more_epochs_are_refused_where_a_schedule_spans_them(straight: Path, tmp_path: Path) -> None:
    text = (straight / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(text.replace("name: constant", "name: cosine\n  final: 0"))
    with pytest.raises(KitsError, match=r"trainer.max_epochs=9: this run's schedule is laid out over 3 epochs"):
        resumed_options([f"resume={tmp_path}", "trainer.max_epochs=9"])


def test_auto_goes_on_only_where_there_is_a_run(straight: Path, tmp_path: Path) -> None:
    for folder, wanted in ((tmp_path, None), (straight, str(straight))):
        assert settle(training_options([*TINY, f"run_dir={folder}", "resume=auto"])).resume == wanted


def test_auto_keeps_the_precision_that_the_run_began_with(straight: Path) -> None:
    for asked, wanted in (("auto", "32-true"), ("bf16-mixed", "bf16-mixed")):  # the latter is refused later
        given = training_options([*TINY, f"run_dir={straight}", "resume=auto", f"trainer.precision={asked}"])
        assert settle(given).trainer.precision == wanted
    assert read_config(straight)["trainer"]["precision"] == "32-true"


def test_one_folder_takes_one_training_at_a_time(tmp_path: Path) -> None:
    options = training_options(TINY)
    with begin_folder(Start(tmp_path), options):
        kept = (tmp_path / ".lock").stat().st_ino
        with pytest.raises(KitsError, match="at work there"):
            begin_folder(Start(tmp_path), options).__enter__()
    assert (tmp_path / ".lock").stat().st_ino == kept


def test_a_run_that_another_process_finished_in_the_meantime_is_kept(straight: Path, tmp_path: Path) -> None:
    """Both found an empty folder; the other one was faster."""
    options = training_options([*TINY, f"run_dir={tmp_path / 'run'}"])
    start = where_to_start(options, "")
    shutil.copytree(straight, tmp_path / "run")
    kept = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(KitsError, match=r"run_dir=.*: holds a run already; give another run_dir"):
        begin_folder(start, options).__enter__()
    with pytest.raises(KitsError, match=r"another kits\.train has worked there since this one began; start it again"):
        begin_folder(start, options.model_copy(update={"overwrite": True})).__enter__()
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == kept


def test_a_run_that_another_process_went_on_with_in_the_meantime_is_kept(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    options = resumed_options([f"resume={tmp_path / 'run'}", "trainer.max_epochs=5"])
    start = where_to_start(options, read(straight / "last.ckpt")["kits_run"]["data_hash"])
    os.utime(tmp_path / "run" / "last.ckpt")
    with pytest.raises(KitsError, match=r"another kits\.train has worked there"):
        begin_folder(start, options).__enter__()


@pytest.mark.parametrize("what", ["link", "dangling", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused_and_nothing_behind_it_touched(tmp_path: Path, what: str) -> None:
    run, precious = tmp_path / "run", tmp_path / "precious.txt"
    run.mkdir()
    precious.write_text("measured for years")
    if what == "pipe":
        os.mkfifo(run / ".lock")
    elif what == "folder":
        (run / ".lock").mkdir()
    else:
        (run / ".lock").symlink_to(precious if what == "link" else tmp_path / "new.txt")
    with pytest.raises(KitsError, match=r"\.lock: is no file that kits.train made, but a link, a folder or a pipe; remove it"):
        begin_folder(Start(run), training_options(TINY)).__enter__()
    assert precious.read_text(encoding="utf-8") == "measured for years"
    assert not (tmp_path / "new.txt").exists()


def test_a_checkpoint_of_another_format_is_refused_in_one_line(straight: Path, tmp_path: Path) -> None:
    content = read(straight / "best.ckpt")
    for number in (1, 99):
        path = tmp_path / f"{number}.ckpt"
        torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], "kits_format": number}}, path)
        with pytest.raises(
            KitsError, match=rf"{number}\.ckpt: written in format {number}, this version reads \d+; train it"
        ) as caught:
            load_network(path, "coarse", "cpu")
        assert "\n" not in str(caught.value)


def test_an_interrupted_epoch_goes_on_with_the_patches_that_are_left(folder: Path) -> None:
    data = data_of([*TINY, "sampling.batch_size=2", "sampling.patches_per_epoch=8", f"data.cache={folder / 'cache'}"])
    torch.manual_seed(3)
    whole = data.train_dataloader()
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    data.load_state_dict({"epoch": 1, "batches": 3, "ranks": 1})
    rest = data.train_dataloader()
    for loader in (whole, rest):
        loader.sampler.set_epoch(1)
    images = [batch["image"] for batch in whole]
    assert_equal([batch["image"] for batch in rest], images[3:], "images")
    rest.sampler.set_epoch(2)
    assert len(list(rest)) == len(images) == 4
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(3))  # loaders draw nothing from it


def test_metrics_keep_their_first_rows_and_take_new_columns(tmp_path: Path) -> None:
    whole = MetricsFile(tmp_path)
    for step in range(4):
        whole.log_metrics({"loss": 1 / (step + 3)}, step)
    whole.log_metrics({"score": 0.1 + 0.2}, 3)
    wanted = (tmp_path / "metrics.csv").read_text(encoding="utf-8")
    again = MetricsFile(tmp_path, kept=2)
    assert len(again.rows) == 2
    for step in (2, 3):
        again.log_metrics({"loss": 1 / (step + 3)}, step)
    assert "score" not in (tmp_path / "metrics.csv").read_text(encoding="utf-8")
    again.log_metrics({"score": 0.1 + 0.2}, 3)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8") == wanted


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    np.random.normal()  # leaves a second number behind
    torch.save(random_state(), tmp_path / "state.pt")

    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.normal()), float(np.random.rand()), torch.randn(()).item()]

    wanted = draw()
    assert draw() != wanted
    set_random_state(read(tmp_path / "state.pt"))
    assert draw() == wanted
