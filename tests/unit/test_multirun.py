"""Our plugins of Hydra: what they refuse, what they draw, where they stop, and the files that trials leave."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kits.config.command import command
from kits.config.composing import compose
from kits.config.schema.training import Train
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.hydra_plugins.gpus import deal
from kits.hydra_plugins.launcher import last_error, name_of
from kits.hydra_plugins.sweep_picture import draw_sweep
from kits.hydra_plugins.sweeper import TPESweeper
from kits.hydra_plugins.trial_records import Trial, read_trials, results, scored_epochs, update
from kits.train import main

SCORES = "epoch,step,train/loss,val/dice,val/score\n0,9,0.7,,\n0,9,,0.4,0.5\n1,19,,0.3,0.8\n2,29,,0.9,0.8\n3,39,,nan,nan\n"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call a command as a user does, with -m, in a folder that holds what looks like a prepared cache."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.json").write_text("{}")

    def calling(*arguments: str, task: Callable[[], None] = main) -> None:
        monkeypatch.setattr(sys, "argv", ["train", "-m", *arguments])
        task()

    return calling


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage=coarse", "los.bias=1,2"], "los.bias: no such key; did you mean loss.bias?"),
        (["stage=coarse", "loss.bias=2,3,0.5"], "loss.bias=0.5: give a number of at least 1"),
        (["stage=coarse", "loss=dice,nothing"], "loss=nothing: no such choice; take one of bias_dice"),
        (["stage=coarse", "loss.bias=1,2", "optimizer.lr=fast"], "optimizer.lr=fast: give a number"),
        (["stage=fine", "seed=1,2", "sampling.patch=[24,150,160]"], "sampling.patch=[24,150,160]: the encoders' scales"),
        (["stage=coarse", "loss.bias=1,2", "hydra/launcher=slum"], "hydra/launcher=slum: no such choice; take one of"),
        (["stage=coarse", "loss.bias=1,2", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: give a whole number of 1"),
        (
            ["stage=coarse", "loss.bias=1,2", "hydra.launcher.poll_seconds=soon"],
            "hydra.launcher.poll_seconds=soon: give a number",
        ),
        (["stage=coarse", "loss.bias=1,2", "hydra.launcher.jobs=2"], "hydra.launcher.jobs: no such key"),
        (["stage=coarse", "loss.bias=interval(1,2)"], "loss.bias=interval(1,2): a grid takes values"),
        (["stage=coarse", "loss.bias=1,2", "run_dir=x"], "run_dir=x: each trial has its own folder"),
        (["stage=coarse", "seed=1,1"], "seed-1: is the folder of several trials; give each value once"),
        (
            ["stage=coarse", "seed=1,2", "hydra.sweep.dir=cache/index.json"],
            "hydra.sweep.dir=cache/index.json: is a file; give a folder",
        ),
        (
            ["stage=coarse", "seed=1,2", "loss=own", "loss._target_=kits.core.Nothing"],
            "loss._target_=kits.core.Nothing: ImportError: Error loading 'kits.core.Nothing'",
        ),
        (["stage=coarse", "seed=1,2", "+callbacks.mine._target_=no.such.Thing"], "callbacks.mine._target_=no.such.Thing: "),
        (
            ["stage=coarse", "seed=1,2", "loss=own", "loss._target_=torch.optim.Adam"],
            "loss._target_=torch.optim.Adam: gives Adam; name what gives a torch.nn.Module",
        ),
        (
            ["stage=coarse", "optimizer=own", "optimizer._target_=torch.optim.Adam,torch.nn.ReLU"],
            "optimizer._target_=torch.nn.ReLU: gives ReLU; name what gives a torch.optim.Optimizer",
        ),
        (
            ["stage=coarse", "seed=1,2", "scheduler=own", "scheduler._target_=torch.optim.Adam"],
            "scheduler._target_=torch.optim.Adam: gives Adam; name what gives a torch.optim.lr_scheduler.LRScheduler",
        ),
        (
            ["stage=coarse", "seed=1,2", "+callbacks.mine._target_=pytorch_lightning.loggers.CSVLogger"],
            "callbacks.mine._target_=pytorch_lightning.loggers.CSVLogger: gives CSVLogger; name what",
        ),
        (
            ["stage=coarse", "seed=1,2", "+logger.mine._target_=torch.nn.ReLU"],
            "logger.mine._target_=torch.nn.ReLU: gives ReLU; name what gives a pytorch_lightning.loggers.Logger",
        ),
        (
            ["stage=coarse", "seed=1,2", "+augmentation.mine={_target_:torch.nn.ReLU,on:hu}"],
            "augmentation.mine._target_=torch.nn.ReLU: gives ReLU; name what gives a monai.transforms.Transform",
        ),
        (["stage=coarse", "seed=1,2", "trainer.limit_val_batches=0"], "trainer.limit_val_batches=0: trials are compared by"),
        (["stage=coarse", "loss.bias=(1"], "loss.bias=(1: cannot be read"),
        (["stage=coarse", "hydra/sweeper=tpe"], "hydra/sweeper=tpe: nothing to search"),
        (["stage=coarse", "hydra/sweeper=tpe", "optimizer.lr=tag(log,interval(0,1))"], "nothing to draw from"),
        (["stage=coarse", "hydra/sweeper=tpe", "loss.bias=interval(-2,-1)"], ": give a number of at least 1"),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_anything_starts(
    arguments: list[str], words: str, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(*arguments, "data.cache=cache")
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.err.startswith("kits.train: ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert [path.name for path in Path().iterdir()] == ["cache"], "a sweep that was refused left files behind"


def test_a_refused_sweep_leaves_the_file_of_an_earlier_one(call: Callable[..., None]) -> None:
    Path("sweep").mkdir()
    Path("sweep/multirun.yaml").write_text("earlier: 1\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        call("stage=coarse", "loss.bias=2,0.5", "data.cache=cache", "hydra.sweep.dir=sweep")
    assert {path.name: path.read_text(encoding="utf-8") for path in Path("sweep").iterdir()} == {"multirun.yaml": "earlier: 1\n"}


def test_a_sweep_is_refused_without_torch_and_numpy(tmp_path: Path) -> None:
    line = "import sys; from kits.train import main; sys.argv[1:] = ['-m', 'stage=coarse', 'loss.bias=2,0.5']\n"
    heavy = {"torch", "optuna", "matplotlib", "numpy", "SimpleITK"}
    line += f"try: main()\nexcept SystemExit: print(*sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stderr.startswith("kits.train: ")
    assert ran.stdout == "\n"


def test_ranks_that_would_each_run_the_sweep_are_refused(
    call: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        call("stage=coarse", "loss.bias=1,2", "data.cache=cache")
    assert "started as one of several ranks" in capsys.readouterr().err


def test_ddp_in_the_process_of_another_launcher_is_refused(call: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("stage=coarse", "seed=1", "data.cache=cache", "hydra/launcher=basic", "trainer.devices=2")
    assert "kits.train: trainer.devices: this launcher trains on one device a trial" in capsys.readouterr().err


def test_a_search_is_seeded_and_one_that_is_started_again_draws_what_it_would_have_drawn(call: Callable[..., None]) -> None:
    pytest.importorskip("optuna")
    drawn: list[float] = []

    @command("train")
    def score(options: Train) -> float:
        """Stand in for a training that is best at a rate of 0.01."""
        drawn.append(options.optimizer.lr)
        return 1 - abs(math.log10(options.optimizer.lr) + 2) / 5

    search = ["stage=coarse", "data.cache=cache", "hydra/launcher=basic", "hydra/sweeper=tpe", "hydra.sweeper.n_startup_trials=2"]
    search += ["optimizer.lr=tag(log,interval(1e-5,1e-1))"]
    call(*search, "hydra.sweep.dir=whole", "hydra.sweeper.n_trials=6", task=score)
    assert len(set(drawn)) == 6
    for trials in (2, 6):
        call(*search, "hydra.sweep.dir=parts", f"hydra.sweeper.n_trials={trials}", task=score)
    assert drawn[6:] == drawn[:6]
    with pytest.raises(SystemExit):
        call(*search, "seed=3", "hydra.sweep.dir=parts", task=score)
    assert len(drawn) == 12


def test_a_trial_below_the_median_is_behind_after_the_warmup_and_others_are_not(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    pruning = {"n_startup_trials": 2, "n_warmup_steps": 1}
    sweeper = TPESweeper(n_trials=8, n_jobs=None, seed=0, n_startup_trials=2, pruning=pruning, params=None)
    sweeper.optuna, sweeper.folder, sweeper.fixed = optuna, tmp_path, []
    sweeper.space = {"lr": optuna.distributions.FloatDistribution(0, 1)}
    sweeper.study = sweeper.open_study()
    sweeper.launcher = type("Launcher", (), {"score": "val/score"})

    def metrics(number: int, *scores: float) -> Path:
        rows = [f"{epoch},{10 * epoch + 9},{score}" for epoch, score in enumerate(scores)]
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "metrics.csv").write_text("\n".join(["epoch,step,val/score", *rows, ""]))
        return tmp_path / str(number)

    for number, final in enumerate((0.6, 0.8)):
        sweeper.study.ask(sweeper.space)
        assert not sweeper.prune(number, metrics(number, 0.1, 0.5, final)), "there are no others to compare with"
        sweeper.study.tell(number, final)
    for _ in "ab":
        sweeper.study.ask(sweeper.space)
    assert not sweeper.prune(2, metrics(2, 0.05)), "it is still in its warmup"
    assert sweeper.prune(2, metrics(2, 0.05, 0.4, 0.9)), "after its second epoch, whatever came later"
    assert not sweeper.prune(3, metrics(3, 0.05, 0.55))


def test_a_trial_that_a_killed_sweep_has_left_running_is_left_alone(
    call: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "sweep" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(SCORES)
    with sole_user(folder, lock=folder / ".lock", key="run_dir", work="kits.train"), pytest.raises(SystemExit):
        call("stage=coarse", "seed=choice(0)", "data.cache=cache", "hydra.sweep.dir=sweep")
    assert "seed-0: run_dir=sweep/seed-0: another kits.train is at work there" in capsys.readouterr().out
    assert (folder / "metrics.csv").read_text() == SCORES
    assert not (folder / "train.log").exists()


def test_names_can_be_typed_in_an_override_and_tell_trials_apart() -> None:
    assert name_of({"loss.bias": "1", "seed": "-2"}) == "loss.bias-1_seed--2"
    assert name_of({"lr": "0.0035684317800839726"}).startswith("lr-0.003568_")
    names = [name_of(one) for one in ({"a": "x/y"}, {"a": "x-y"}, {"a": "'x=1, y'"}, {"a": "z" * 300})]
    assert len(set(names)) == 4
    for name in names:
        assert len(name) < 200
        given = [f"coarse=runs/{name}/best.ckpt", "fine=x", "input=x", "output=y"]
        assert compose("predict", given)["coarse"] == f"runs/{name}/best.ckpt"


def test_the_best_epoch_is_the_first_of_the_best_score_and_a_line_half_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(SCORES + "4,49,,0.9")
    (tmp_path / "manifest.json").write_text('{"steps": 40, "seconds": 2.5, "peak_memory_gib": {"process": 1.5, "cuda:0": 3.0}}')
    assert [row["epoch"] for row in scored_epochs(tmp_path, "val/score")] == [0, 1, 2]
    found = results(tmp_path, "val/score")
    assert (found["score"], found["epoch"], found["scores"]) == (0.8, 1, {"val/dice": 0.3, "val/score": 0.8})
    assert (found["steps"], found["seconds"], found["peak_memory_gib"]) == (40, 2.5, 3.0)
    assert results(tmp_path / "none", "val/score")["score"] is None


def test_an_error_is_the_commands_own_line_else_the_last_one(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("epoch 0:  10%|#\repoch 0: 20%|##\nkits.train: loss: wrong\nwarning: leaked\n")
    assert last_error(log, 1) == "loss: wrong"
    log.write_text("Traceback:\n  line 1\nRuntimeError: no\nsense\rValueError: 3\n\n")
    assert last_error(log, 1) == "ValueError: 3"
    assert "SIGKILL" in last_error(log, -9)


def test_the_table_has_a_row_a_trial_and_the_picture_a_panel_a_parameter(tmp_path: Path) -> None:
    for number, (loss, score) in enumerate((("dice", 0.25), ("tversky", None), ("dice", 0.75))):
        folder, parameters = tmp_path / f"seed-{10 - number}", {"loss": loss, "seed": str(10 - number)}
        trial = Trial(number=number, run_dir=folder, parameters=parameters, fixed=["a=b"], overrides=["a=b"])
        trial.run_dir.mkdir()
        if score:
            (trial.run_dir / "metrics.csv").write_text(f"epoch,val/score\n0,{score}\n")
        said = update(tmp_path, trial, "done" if score else "failed", "" if score else "no, not", "val/score")
    assert said.startswith("seed-8: done, val/score 0.7500 in epoch 0; best of 2: ")
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["seed"], row["val/score"]) for row in rows] == [("10", "0.25"), ("9", ""), ("8", "0.75")]
    assert (rows[1]["error"], rows[0]["run_dir"]) == ("no, not", str(tmp_path / "seed-10"))
    assert json.loads((tmp_path / "seed-9" / "trial.json").read_text(encoding="utf-8"))["status"] == "failed"
    picture = (tmp_path / "sweep.png").read_bytes()
    draw_sweep(tmp_path / "sweep.png", [trial for trial in read_trials(tmp_path) if trial.score is None], "val/score")
    assert (tmp_path / "sweep.png").read_bytes() == picture, "without a score nothing is drawn"


def test_gpus_are_dealt_out_to_trials_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deal(2, None, "cpu", 1) == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert deal(None, None, "auto", 2) == ["4,5", "6,7"]
    assert deal(3, None, "gpu", 1) == ["4", "5", "6"]
    assert deal(1, None, "gpu", "auto") == ["4,5,6,7"]
    assert deal(2, [0, 0], "gpu", 1) == ["0", "0"]
    with pytest.raises(KitsError, match=r"n_jobs=3: 4 GPUs are too few with trainer\.devices=2"):
        deal(3, None, "auto", 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert deal(None, None, "auto", 1) == [None]
