"""Sweeps: what a command line asks for, what a trial leaves, and the table and picture of all."""

import csv
import json
import math
from pathlib import Path

import pytest

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.sweep import build_search, refuse_ranks, sort_overrides, space_of, sweep, values_of
from kits.sweeps.adaptive import Adaptive, Interval
from kits.sweeps.gpus import deal
from kits.sweeps.grid import names_of
from kits.sweeps.picture import draw, positions_of
from kits.sweeps.pool import Processes, run_all
from kits.sweeps.scores import best_row, read_metrics
from kits.sweeps.study import same_sweep
from kits.sweeps.table import read_trials, write_table
from kits.sweeps.trial import Trial, begin, last_error, read_record

SCORES = "epoch,step,train/loss,val/dice,val/score\n0,9,0.7,,\n0,9,,0.4,0.5\n1,19,,0.3,0.8\n2,29,,0.9,0.8\n3,39,,nan,nan\n"


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("loss.bias=1,2,3", ["1", "2", "3"]),
        ("seed=range(1,6,2)", ["1", "3", "5"]),
        ("loss=choice(dice,tversky)", ["dice", "tversky"]),
        ("loss=glob(*dice)", ["bias_dice", "dice"]),
        ("sampling.patch=[8,32,32],[16,32,32]", ["[8,32,32]", "[16,32,32]"]),
        ("seed=1,1", ["1"]),
    ],
)
def test_hydras_grammar_gives_the_values(override: str, values: list[str]) -> None:
    ours, fixed, swept = sort_overrides(["stage=coarse", "sweep=grid", "sweep.jobs=2", override])
    assert (ours, fixed) == (["sweep=grid", "sweep.jobs=2"], ["stage=coarse"])
    assert [values_of(each) for each in swept] == [values]


def test_names_can_be_typed_in_an_override_and_tell_trials_apart() -> None:
    parameters = [{"loss.bias": "1", "+model.path": "a/b"}, {"loss.bias": "-1", "+model.path": "'x=1, y'"}]
    names = names_of(parameters)
    assert names[0] == "loss.bias-1_+model.path-a-b"
    for name in names:
        assert compose("predict", [f"coarse=runs/{name}/best.ckpt", "input=x", "output=y"])["coarse"] == f"runs/{name}/best.ckpt"
    same = names_of([{"a": "x/y"}, {"a": "x-y"}, {"a": "z" * 300}])
    assert len(set(same)) == 3
    assert all(len(name) < 200 for name in same)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage=coarse"], "no key has several values"),
        (["stage=coarse", "los.bias=1,2"], "los.bias: no such key; did you mean loss.bias?"),
        (["stage=coarse", "loss.bias=1,2", "optimizer.lr=fast"], "optimizer.lr=fast: give a number"),
        (["stage=fine", "seed=1,2", "sampling.patch=[24,150,160]"], "sampling.patch=[24,150,160]: the encoders' scales"),
        (["stage=coarse", "loss.bias=1,2", "sweep=slum"], "sweep=slum: no such choice; take one of grid"),
        (["stage=coarse", "loss.bias=1,2", "sweep.jobs=0"], "sweep.jobs=0: give a whole number of 1"),
        (["stage=coarse", "loss.bias=1,2", "sweep.search=random"], "sweep.search=random"),
        (["stage=coarse", "loss.bias=interval(1,2)"], "a grid needs values"),
        (["stage=coarse", "loss=glob(x*)"], "no choice of that name"),
        (["stage=coarse", "loss.bias=(1"], "sweep: "),
        (["stage=coarse", "loss.bias=1,2", "run_dir=x"], "run_dir: each trial has a run folder of its own"),
        (["stage=coarse", "loss.bias=1,2", "hydra/launcher=submitit_slurm"], "hydra/launcher: Hydra's sweepers and launchers"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(KitsError) as caught:
        sweep([*arguments, f"sweep.dir={tmp_path}/s"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "a sweep that was refused left files behind"


def test_ranks_that_would_each_run_the_sweep_are_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["stage=coarse", "loss.bias=interval(1,2)", "trainer=ddp"]
    monkeypatch.setenv("SLURM_NTASKS", "4")
    refuse_ranks(arguments)  # a batch script, which runs once
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(KitsError, match=r"SLURM_STEP_NUM_TASKS=4.*start it once, without torchrun, srun or mpirun") as caught:
        sweep(arguments)
    assert str(caught.value).endswith("kits.train -m stage=coarse 'loss.bias=interval(1,2)' trainer=ddp")


@pytest.mark.parametrize(
    ("plugins", "ours"),
    [
        (["hydra/sweeper=optuna"], " sweep=optuna"),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"], " sweep=slurm"),
        (["hydra/sweeper=optuna", "hydra/launcher=submitit_local"], " 'sweep=[optuna,local]'"),
        (["hydra/launcher=joblib"], ""),
    ],
)
def test_an_adaptive_sweep_of_ddp_in_this_process_is_refused_with_the_command_that_does_it(plugins: list[str], ours: str) -> None:
    arguments = ["stage=coarse", "trainer=ddp", "loss.bias=interval(1,2)"]
    with pytest.raises(KitsError, match="where every rank of DDP runs the whole sweep") as caught:
        sweep([*plugins, *arguments])
    assert str(caught.value).endswith(f"python -m kits.train -m stage=coarse trainer=ddp 'loss.bias=interval(1,2)'{ours}")


def test_the_best_epoch_is_the_first_of_the_best_score_and_a_line_half_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(SCORES + "4,49,,0.9")
    rows = read_metrics(tmp_path)
    assert len(rows) == 5
    assert best_row(rows, "val/score") == {"epoch": 1, "step": 19, "val/dice": 0.3, "val/score": 0.8}
    assert read_metrics(tmp_path / "none") == []
    assert best_row([], "val/score") == {}


def test_an_error_is_the_commands_own_line_else_the_last_one(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("epoch 0:  10%|#\repoch 0: 20%|##\nkits.train: loss: wrong\nwarning: leaked\n")
    assert last_error(log, 1) == "loss: wrong"
    log.write_text("Traceback:\n  line 1\nRuntimeError: no\nsense\rValueError: 3\n\n")
    assert last_error(log, 1) == "ValueError: 3"
    assert "SIGKILL" in last_error(log, -9)
    log.write_text("")
    assert last_error(log, 3) == "exit code 3"


def record(folder: Path, name: str, parameters: dict, **content: object) -> None:
    (folder / name).mkdir()
    (folder / name / "trial.json").write_text(json.dumps({"trial": name, "parameters": parameters, **content}))


def test_the_table_has_a_row_a_trial_and_the_picture_a_panel_a_parameter(tmp_path: Path) -> None:
    for seed, score in ((0, 0.25), (10, 0.75), (2, None)):
        status = "failed" if score is None else "done"
        scores = {} if score is None else {"val/score": score}
        parameters = {"loss": "dice" if seed else "tversky", "seed": str(seed)}
        record(tmp_path, f"seed-{seed}", parameters, status=status, score=score, scores=scores, error="" if score else "no, not")
    records = read_trials(tmp_path)
    write_table(tmp_path / "sweep.csv", records)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["trial"] for row in rows] == ["seed-0", "seed-2", "seed-10"]
    assert [row["val/score"] for row in rows] == ["0.25", "", "0.75"]
    assert rows[1]["error"] == "no, not"
    assert rows[0]["run_dir"] == str(tmp_path / "seed-0")
    draw(tmp_path / "sweep.png", records, "val/score")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert positions_of(["b", "a", "b"]) == ([1, 0, 1], ["a", "b"])
    assert positions_of(["1e-3", "2"]) == ([1e-3, 2.0], None)


def test_another_sweep_in_the_same_folder_is_refused_but_a_grid_may_grow(tmp_path: Path) -> None:
    same_sweep(tmp_path, "optuna", ["stage=fine"], ["loss.bias=1,2"])
    same_sweep(tmp_path, "grid", ["stage=coarse", "seed=0"], ["loss.bias=1,2"])
    record(tmp_path, "loss.bias-1", {"loss.bias": "1"})
    same_sweep(tmp_path, "grid", ["seed=0", "stage=coarse"], ["loss.bias=1,2,3"])
    with pytest.raises(KitsError, match=r"fixed: there seed=0, now seed=1\)"):
        same_sweep(tmp_path, "grid", ["stage=coarse", "seed=1"], ["loss.bias=1,2"])
    with pytest.raises(KitsError, match="search: there grid, now optuna"):
        same_sweep(tmp_path, "optuna", ["stage=coarse", "seed=0"], ["loss.bias=1,2"])


def test_gpus_are_dealt_out_one_set_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    one, two = {"accelerator": "auto", "devices": 1}, {"accelerator": "auto", "devices": 2}
    assert deal(None, None, one) == ["2", "3", "5", "7"]
    assert deal(None, None, two) == ["2,3", "5,7"]
    assert deal([0, 0], 2, one) == ["0", "0"]
    assert deal(None, 1, two) == ["2,3"]
    assert deal(None, 1, {**one, "devices": "auto"}) == ["2,3,5,7"]
    assert deal(None, 3, {**one, "accelerator": "cpu"}) == [None] * 3
    with pytest.raises(KitsError, match=r"sweep.jobs=3: 4 GPUs are too few with trainer.devices=2; give sweep.jobs=2"):
        deal(None, 3, two)
    with pytest.raises(KitsError, match=r"give trainer\.devices=1"):
        deal(None, 2, {**one, "devices": "auto"})


def test_trials_are_runs_of_one_group_in_wandb_and_their_overrides_are_their_names(tmp_path: Path) -> None:
    line = ["stage=coarse", "logger=wandb", "loss=dice,tversky", "seed=0,1", f"sweep.dir={tmp_path}/bias study"]
    ours, fixed, swept = sort_overrides(line)
    config = compose("sweep", [*fixed, "loss=dice", "seed=0", *ours])
    search = build_search(config, fixed, swept)
    trial = [search.next() for _ in range(search.total)][-1]
    assert trial is not None
    # As the trial's own process reads it.
    told = compose("train", trial.overrides)
    assert (told["logger"]["group"], told["logger"]["run_name"]) == ("bias study", "loss=tversky seed=1")
    assert (told["loss"]["name"], told["seed"], told["resume"]) == ("tversky", 1, "auto")
    assert told["run_dir"] == str(tmp_path / "bias study" / "loss-tversky_seed-1")


class Few:
    """A search over trials that are given."""

    def __init__(self, trials: list[Trial]) -> None:
        self.total, self.waiting, self.told = len(trials), iter(trials), []

    def next(self) -> Trial | None:
        return next(self.waiting, None)

    def is_hopeless(self, trial: Trial) -> bool:
        return False

    def tell(self, trial: Trial, record: dict) -> None:
        self.told.append(trial.name)


def test_a_trial_that_fails_is_recorded_with_its_line_and_the_sweep_goes_on(tmp_path: Path) -> None:
    # Each fails where its configuration is composed, long before torch is imported.
    overrides = {"key": ["stage=coarse", "los.bias=1"], "choice": ["stage=coarse", "loss=none"]}
    trials = [Trial(name, {"x": name}, given, tmp_path / name, "val/score", 5) for name, given in overrides.items()]
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "trial.json").write_text('{"status": "running"}')
    (tmp_path / "key" / "metrics.csv").write_text(SCORES)
    search, ended = Few(trials), []
    run_all(search, Processes([None, None], ()), 2, 0.05, ended.append)
    assert sorted(search.told) == ["choice", "key"]
    assert sorted(record["trial"] for record in ended) == ["choice", "key"]
    for name, words in (("key", "los.bias: no such key; did you mean loss.bias?"), ("choice", "loss=none: no such choice")):
        record = read_record(tmp_path / name)
        assert record is not None
        assert record["status"] == "failed"
        assert record["error"].startswith(words)
        assert record["command"] == ["kits.train", *overrides[name]]
        assert record["seconds"] > 0
        assert record["score"] is None
    assert not (tmp_path / "key" / "metrics.csv").exists(), "an unfinished attempt's scores would count for the next one"


@pytest.mark.parametrize(
    ("override", "space"),
    [
        ("loss.bias=interval(1,5)", Interval(1.0, 5.0)),
        ("seed=int(interval(1,5))", Interval(1, 5)),
        ("optimizer.lr=tag(log,interval(1e-5,1e-2))", Interval(1e-5, 1e-2, log=True)),
        ("seed=range(1,9,3)", Interval(1, 7, step=3)),
        ("loss=choice(dice,tversky)", ["dice", "tversky"]),
    ],
)
def test_the_space_of_an_adaptive_search(override: str, space: object) -> None:
    (found,) = (space_of(each) for each in sort_overrides([override])[2])
    assert found == space
    if isinstance(found, Interval) and isinstance(space, Interval):
        assert type(found.low) is type(space.low)


def adaptive(folder: Path, trials: int = 8) -> Adaptive:
    def make(parameters: dict[str, str], name: str) -> Trial:
        return Trial(name, parameters, [], folder / name, "val/score", 5)

    options = {"dir": str(folder), "trials": trials, "seed": 3, "startup_trials": 2}
    options["pruning"] = {"startup_trials": 2, "warmup_epochs": 1}
    folder.mkdir(exist_ok=True)
    return Adaptive({"lr": Interval(1e-5, 1e-1, log=True), "loss": ["dice", "tversky"]}, make, options)


def finish(search: Adaptive, trial: Trial) -> None:
    """Let a trial score best at lr = 1e-2."""
    score = 1 - abs(math.log10(float(trial.parameters["lr"])) + 2) / 5
    search.tell(trial, {"status": "done", "score": score})


def drawn(search: Adaptive, number: int) -> list[dict[str, str]]:
    """The parameters of so many trials, each finished before the next."""
    found = []
    for _ in range(number):
        trial = search.next()
        assert trial is not None
        finish(search, trial)
        found.append(trial.parameters)
    return found


def test_an_adaptive_search_is_seeded_and_one_that_was_killed_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    whole = adaptive(tmp_path / "whole")
    expected = drawn(whole, 8)
    assert whole.next() is None
    assert len({each["lr"] for each in expected}) == 8
    found = drawn(adaptive(tmp_path / "killed"), 4)
    search = adaptive(tmp_path / "killed")
    killed = search.next()
    again = adaptive(tmp_path / "killed")
    assert killed is not None
    assert again.next() == killed, "the trial that ran is run again, under its number"
    finish(again, killed)
    assert [*found, killed.parameters, *drawn(again, 3)] == expected
    assert again.next() is None
    assert adaptive(tmp_path / "killed", trials=9).next() is not None


def test_a_trial_that_ended_while_nobody_looked_is_not_run_again(tmp_path: Path) -> None:
    trial = adaptive(tmp_path).next()
    assert trial is not None
    begin(trial)
    (trial.run_dir / "trial.json").write_text('{"status": "done", "score": 0.5}')
    search = adaptive(tmp_path)
    following = search.next()
    assert following is not None
    assert following.name.startswith("001_")
    assert search.study.best_value == 0.5


def test_a_trial_below_the_median_is_pruned_after_the_warmup_and_others_are_not(tmp_path: Path) -> None:
    def metrics(trial: Trial, *scores: float) -> None:
        begin(trial)
        rows = [f"{epoch},{10 * epoch + 9},{score}" for epoch, score in enumerate(scores)]
        (trial.run_dir / "metrics.csv").write_text("\n".join(["epoch,step,val/score", *rows, ""]))

    search = adaptive(tmp_path)
    for final in (0.6, 0.8):
        trial = search.next()
        assert trial is not None
        metrics(trial, 0.1, 0.5, final)
        assert not search.is_hopeless(trial), "there are no others to compare with"
        search.tell(trial, {"status": "done", "score": final})
    bad, good = search.next(), search.next()
    assert bad is not None
    assert good is not None
    metrics(bad, 0.05)
    assert not search.is_hopeless(bad), "it is still in its warmup"
    metrics(bad, 0.05, 0.4, 0.9)
    assert search.is_hopeless(bad), "after its second epoch, whatever came later"
    search.tell(bad, {"status": "pruned", "score": 0.9})
    metrics(good, 0.05, 0.55)
    assert not search.is_hopeless(good)
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "RUNNING"]
    search.tell(good, {"status": "failed", "score": None})
    assert search.study.trials[-1].state.name == "FAIL"


def test_an_interval_that_cannot_be_drawn_from_is_one_line(tmp_path: Path) -> None:
    options = {"dir": str(tmp_path), "trials": 1, "seed": 0, "startup_trials": 1, "pruning": None}
    with pytest.raises(KitsError, match="lr: no interval to draw from"):
        Adaptive({"lr": Interval(0.0, 1.0, log=True)}, lambda parameters, name: pytest.fail("drawn"), options)


def test_an_attempt_is_kept_only_where_its_training_can_go_on(tmp_path: Path) -> None:
    def kept(overrides: list[str], *files: str) -> bool:
        trial = Trial("a", {}, overrides, tmp_path / "a", "val/score", 5)
        begin(trial)
        for name in files:
            (trial.run_dir / name).write_text('{"finished": true}')
        (trial.run_dir / "trace").touch()
        trial.stop("interrupted")
        begin(trial)
        assert not (trial.run_dir / ".stop").exists()
        return (trial.run_dir / "trace").exists()

    assert kept(["resume=auto"], "last.ckpt")
    assert not kept([], "last.ckpt")
    assert not kept(["resume=auto"])
    assert not kept(["resume=auto"], "last.ckpt", "manifest.json")
