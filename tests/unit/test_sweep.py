"""Sweeps: what a command line asks for, what a trial leaves, and the table and picture of all."""

import csv
import json
from pathlib import Path

import pytest

from kits.cli import compose
from kits.errors import KitsError
from kits.sweep import sort_overrides, sweep, values_of
from kits.sweeps.gpus import deal
from kits.sweeps.grid import names_of
from kits.sweeps.picture import draw, positions_of
from kits.sweeps.scores import best_row, read_metrics
from kits.sweeps.study import same_sweep
from kits.sweeps.table import read_trials, write_table
from kits.sweeps.trial import last_error

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
        (["stage=coarse", "loss.bias=1,2", "sweep=slum"], "sweep=slum: no such choice; take one of grid"),
        (["stage=coarse", "loss.bias=1,2", "sweep.jobs=0"], "sweep.jobs=0: give a whole number of 1"),
        (["stage=coarse", "loss.bias=1,2", "sweep.search=random"], "sweep.search=random"),
        (["stage=coarse", "loss.bias=interval(1,2)"], "a grid needs values"),
        (["stage=coarse", "loss=glob(x*)"], "no choice of that name"),
        (["stage=coarse", "loss.bias=(1"], "sweep: "),
        (["stage=coarse", "loss.bias=1,2", "run_dir=x"], "run_dir: each trial has a run folder of its own"),
        (["stage=coarse", "loss.bias=1,2", "hydra/launcher=submitit_slurm"], "hydra/launcher: trials are processes of their own"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(KitsError) as caught:
        sweep([*arguments, f"sweep.dir={tmp_path}/s"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "a sweep that was refused left files behind"


def test_ranks_that_would_each_run_the_sweep_are_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(KitsError, match=r"SLURM_NTASKS=4.*python -m kits.train -m stage=coarse 'loss.bias=interval\(1,2\)'"):
        sweep(["stage=coarse", "loss.bias=interval(1,2)"])


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
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == ["seed-0", "seed-2", "seed-10"]
    assert [row["val/score"] for row in rows] == ["0.25", "", "0.75"]
    assert rows[1]["error"] == "no, not"
    assert rows[0]["run_dir"] == str(tmp_path / "seed-0")
    draw(tmp_path / "sweep.png", records, "val/score")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert positions_of(["b", "a", "b"]) == ([1, 0, 1], ["a", "b"])
    assert positions_of(["1e-3", "2"]) == ([1e-3, 2.0], None)


def test_another_sweep_in_the_same_folder_is_refused_but_a_grid_may_grow(tmp_path: Path) -> None:
    same_sweep(tmp_path, "grid", ["stage=coarse", "seed=0"], ["loss.bias=1,2"])
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
    assert deal(None, 1, one) == [None]
    assert deal(None, 3, {**one, "accelerator": "cpu"}) == [None] * 3
    with pytest.raises(KitsError, match=r"sweep.jobs=3: 4 GPUs are too few with trainer.devices=2; give sweep.jobs=2"):
        deal(None, 3, two)
    with pytest.raises(KitsError, match=r"give trainer\.devices=1"):
        deal(None, 2, {**one, "devices": "auto"})
