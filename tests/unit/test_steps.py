"""Steps: whose an override is, when a step runs again and why, how an interrupted one goes on, what stops a plan early."""

import json
import os
import re
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kits.config import flat
from kits.config.composing import checked, compose
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.config.schema.evaluation import Bootstrap
from kits.config.schema.workflow import Pipeline
from kits.core.errors import KitsError
from kits.data.cache import cache_settings
from kits.data.splits import read_split
from kits.metrics.tables import write_coverage
from kits.workflows.folds import AllFolds
from kits.workflows.plan import later_wins, passed_on, quoted, spelled
from kits.workflows.step import Runner, Step, run_process
from kits.workflows.two_stages import TwoStages


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans name their folders from the working one."""
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path)


def test_other_keys_than_the_commands_own_are_for_its_trainings() -> None:
    given = ["study=demo", "output=x", "+fine.loss=dice", "seed=3", "data.root='a b'", "~split", "++trainer.profiler=simple"]
    assert passed_on(given, Pipeline.model_fields) == ["seed=3", "data.root='a b'", "~split", "++trainer.profiler=simple"]


def test_what_is_for_a_step_is_given_key_by_key_or_at_once() -> None:
    needed = ["study=demo", "output=x"]
    key_by_key = checked("pipeline", [*needed, "+fine.model.fusion=gate", "+fine.loss=dice"])
    at_once = checked("pipeline", [*needed, "fine={model.fusion:gate,loss:dice}"])
    assert flat(key_by_key.fine) == flat(at_once.fine) == {"model.fusion": "gate", "loss": "dice"}
    assert flat(at_once.coarse) == {}


def test_a_workflow_refuses_what_no_training_has() -> None:
    with pytest.raises(KitsError, match=r"trainer\.max_epoch: no such key; did you mean trainer\.max_epochs"):
        checked("crossval", ["stage=coarse", "output=x", "trainer.max_epoch=3"])
    with pytest.raises(
        KitsError, match=r"split\.k: no such key under this choice of split; give split=\.\.\. with one of folds, paper"
    ):
        checked("pipeline", ["study=paper", "output=x", "split.k=3"])
    with pytest.raises(KitsError, match="experiment=paper: no such choice; give study=paper"):
        checked("pipeline", ["study=paper", "output=x", "experiment=paper"])


@pytest.mark.parametrize("text", ["a=b", "x.y=[1,2,3]", "it's", 'say "so"', "end\\", "\\'", "a,b c={d:1}", "~key", "C:\\x\\\\'y"])
def test_a_quoted_text_is_what_hydra_reads(text: str) -> None:
    assert OverridesParser.create().parse_overrides([f"key=[{quoted(text)}]"])[0].value() == [text]


@pytest.mark.parametrize(
    "value", [None, True, 3, -1.5, "a/b.ckpt", "with, comma", "null", "12", [1, "a b"], {"count": 2, "x": None}]
)
def test_a_spelled_value_is_read_back(value: Any) -> None:
    assert OverridesParser.create().parse_overrides([f"key={spelled(value)}"])[0].value() == value


def test_a_key_given_twice_keeps_its_last_value() -> None:
    assert later_wins(["a=1", "b=2", "a=3", "+a=4"]) == ["a=3", "b=2", "+a=4"]


class Calls(list[tuple[str, list[str]]]):
    """Stands for the processes: notes each command and leaves its file."""

    def __init__(self, made: Path) -> None:
        super().__init__()
        self.made = made

    def __call__(self, command: str, arguments: list[str]) -> None:
        self.append((command, list(arguments)))
        self.made.parent.mkdir(parents=True, exist_ok=True)
        self.made.write_text(str(len(self)))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Commands that were run, none of which is one."""
    calls = Calls(tmp_path / "out" / "scores" / "table.txt")
    monkeypatch.setattr("kits.workflows.step.run_process", calls)
    return calls


def scoring(folder: Path, **config: Any) -> Step:
    inputs, outputs = {"truth": folder / "truth"}, [folder / "out" / "scores" / "*.txt"]
    places = {"prediction": "x", "truth": "x", "output": "x"}
    return Step("evaluate", "evaluate", ["x=1"], {"overwrite": False, **places, **config}, inputs, ["predict"], outputs)


def said(runner: Runner, step: Step, capsys: pytest.CaptureFixture[str]) -> str:
    """What the runner says of a step."""
    runner.run(step)
    return capsys.readouterr().out.strip().removeprefix(f"{step.name}: ")


def test_a_step_runs_exactly_when_its_record_no_longer_holds(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, runner = tmp_path / "truth", Runner(tmp_path / "out", overwrite=False)
    truth.mkdir()
    (truth / "a").write_text("one")
    step = scoring(tmp_path, seed=0)
    assert said(runner, step, capsys) == "runs"
    assert said(runner, step, capsys) == "up to date"
    assert calls == [("evaluate", ["x=1"])]
    assert said(runner, scoring(tmp_path, seed=1), capsys) == "runs again, because seed changed"
    assert calls[-1] == ("evaluate", ["x=1", "overwrite=true"])
    assert said(runner, scoring(tmp_path, seed=1, new=2), capsys) == "runs again, because new changed"
    assert said(runner, step, capsys) == "runs again, because seed and new changed"
    (truth / "b").write_text("two")
    assert said(runner, step, capsys) == "runs again, because truth changed"
    calls.made.unlink()
    assert said(runner, step, capsys) == "runs again, because scores/table.txt is gone"
    assert said(Runner(tmp_path / "out", overwrite=True), step, capsys) == "runs again, because of overwrite=true"
    assert said(runner, step, capsys) == "up to date"
    assert said(runner, scoring(tmp_path, seed=0, newer=None, bootstrap={"resamples": 2000}), capsys) == "up to date"
    again = "runs again, because bootstrap.resamples changed"
    assert said(runner, scoring(tmp_path, seed=0, bootstrap={"resamples": 2001}), capsys) == again
    assert said(runner, scoring(tmp_path, seed=0), capsys) == again
    (tmp_path / "out" / "steps" / "evaluate.json").write_text("damaged")
    assert said(runner, step, capsys) == "runs"


def test_what_comes_after_a_step_that_ran_again_runs_again(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(tmp_path / "out", overwrite=False)
    predict = Step("predict", "predict", [], {"mirror": False}, {}, [], [calls.made])
    for step in (predict, scoring(tmp_path)):
        assert said(runner, step, capsys) == "runs"
    assert [said(runner, step, capsys) for step in (predict, scoring(tmp_path))] == ["up to date"] * 2
    calls.made.unlink()
    assert said(runner, predict, capsys) == "runs again, because scores/table.txt is gone"
    assert said(runner, scoring(tmp_path), capsys) == "runs again, because predict changed"


def test_places_and_means_are_no_settings_and_results_in_a_tree_no_data(
    tmp_path: Path, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Runner(tmp_path / "truth" / "out", overwrite=False)
    one = {"data": {"root": "a", "workers": 1, "coarse_size": 64}, "prediction": "x", "logger": {"name": "csv"}, "seed": 0}
    other = {"data": {"root": "b", "workers": 2, "coarse_size": 64}, "prediction": "y", "logger": {"name": "wandb"}, "seed": 0}
    calls.made = tmp_path / "truth" / "out" / "table.txt"
    assert said(runner, scoring(tmp_path, **one), capsys) == "runs"
    assert said(runner, scoring(tmp_path, **other), capsys) == "up to date"
    moved = json.loads((runner.output / "steps" / "evaluate.json").read_text(encoding="utf-8"))
    assert moved["settings"] == {"data.coarse_size": 64, "seed": 0}


def training(folder: Path, **config: Any) -> Step:
    settings = {"run_dir": str(folder / "fine"), "overwrite": False, **config}
    return Step("fine", "train", ["stage=fine"], settings, {}, [], [folder / "fine" / "best.ckpt"])


def test_an_interrupted_training_goes_on_and_a_changed_one_begins_anew(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner, run = Runner(tmp_path, overwrite=False), tmp_path / "fine"
    step = training(tmp_path, seed=0)

    def killed(command: str, arguments: list[str]) -> None:
        calls(command, arguments)
        raise KitsError("killed")

    def interrupt(step: Step) -> str:
        with monkeypatch.context() as patch:
            patch.setattr("kits.workflows.step.run_process", killed)
            with pytest.raises(KitsError, match="fine: killed; the same command goes on from there"):
                runner.run(step)
        return capsys.readouterr().out.strip()

    assert interrupt(step) == "fine: runs"
    assert interrupt(step) == "fine: goes on, because it was interrupted"
    assert calls[-1][1] == ["stage=fine", "overwrite=true"], "killed before it had written its configuration"
    run.mkdir()
    (run / "config.yaml").write_text("stage: fine")
    (run / "manifest.json").write_text('{"finished": false}')
    interrupt(step)
    assert calls[-1][1] == [f"resume={run}"]
    assert interrupt(training(tmp_path, seed=1)) == "fine: runs again, because seed changed"
    assert calls[-1][1] == ["stage=fine", "overwrite=true"], "another configuration never goes on with an old run"
    assert not (run / "config.yaml").exists()
    (run / "manifest.json").write_text('{"finished": true, "seconds": 1, "steps": 1, "epochs": 1, "split": {}}')
    count = len(calls)
    assert said(runner, training(tmp_path, seed=1), capsys) == "goes on, because it was interrupted"
    assert len(calls) == count, "killed after the training and before its record: nothing has to run"
    assert said(runner, training(tmp_path, seed=1), capsys) == "up to date"


def test_a_run_that_a_person_trained_there_is_left_to_kits_train(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "config.yaml").write_text("stage: fine")
    (tmp_path / "fine" / "last.ckpt").touch()

    def refused(command: str, arguments: list[str]) -> None:
        assert arguments == ["stage=fine"]
        assert not (tmp_path / "steps" / "fine.json").exists(), "or the next call would overwrite it"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kits.workflows.step.run_process", refused)
        Runner(tmp_path, overwrite=False).run(training(tmp_path))


def test_a_failing_step_is_named_with_the_way_on_and_its_record_says_begun(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = compose("evaluate", [f"prediction={tmp_path}/no", f"truth={tmp_path}", f"output={tmp_path}/scores"])
    arguments = [f"{key}={config[key]}" for key in ("prediction", "truth", "output")]
    step = Step("evaluate", "evaluate", arguments, config, {}, [], [])
    runner = Runner(tmp_path, overwrite=False)
    with pytest.raises(KitsError, match=r"evaluate: the step kits\.evaluate ended with exit code 1.*; the same command goes on"):
        runner.run(step)
    shown = capfd.readouterr()
    assert "evaluate: runs\n" in shown.out
    assert f"$ python -m kits.evaluate prediction={tmp_path}/no" in shown.out
    assert "no CASE/segmentation.nii.gz" in shown.err
    assert runner.record("evaluate")["digest"] is None


def test_a_plan_that_is_told_to_end_tells_its_step_and_waits_for_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output, before = tmp_path / "phantoms", signal.getsignal(signal.SIGTERM)

    def end_when_begun() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if output.exists():  # so the step runs, and this process is ready to pass the signal on
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.05)

    thread = Thread(target=end_when_begun)
    thread.start()
    with pytest.raises(SystemExit) as caught:
        run_process("phantom", [f"output={output}", "cases=200", "matrix=128", "spacing_xy=[2,2]", "workers=1"])
    thread.join()
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM during kits.phantom; the same command goes on from there" in capfd.readouterr().err
    assert len(list(output.glob("case_*"))) < 200


def plan_of(*arguments: str, study: str = "paper") -> TwoStages:
    given = [f"study={study}", "output=out", "data.root=tree", *arguments]
    return TwoStages(checked("pipeline", given), given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["+fine.model.fusin=gate"], "^fine: model.fusin: no such key; did you mean model.fusion?"),
        (["+predict.devise=cpu"], "^predict: devise: no such key; did you mean device?"),
        (["+evaluate.bootstrap.level=0.9", "+report.casses=1"], "^report: casses: no such key"),
        (["+fine.data.coarse_size=64"], r"data\.coarse_size: the coarse stage asks for 256, the fine stage for 64"),
        (["experiment=paper/coarse"], "experiment=paper/coarse: the study has both stages; leave it out"),
        (["+fine.data.roi=oof"], "need folds; add split=folds fold=0"),
        (["trainer.max_steps=9"], r"^coarse: trainer\.max_steps=9: ends before step \d+, the first that is followed by a valid"),
        (["data=nnunet"], "data.layout=nnunet: .* in a KiTS tree; .* kits.convert data=nnunet root=tree"),
    ],
)
def test_a_mistake_in_any_step_is_told_before_the_first_runs(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(KitsError, match=words) as caught:
        plan_of(*arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["pipeline", "crossval", "prepare", "convert"])
def test_a_data_set_that_is_not_there_is_told_with_the_configuration_of_every_command_that_reads_it(command: str) -> None:
    more = {"pipeline": ["study=fast"], "crossval": ["stage=coarse"], "convert": ["data=nnunet"]}
    key = "root" if command == "convert" else "data.root"
    output = [] if command == "prepare" else ["output=out"]
    given = [*more.get(command, []), *output, f"{key}=nowhere"]
    plan: Any = {"pipeline": TwoStages, "crossval": AllFolds}.get(command, lambda options, _: options)
    with pytest.raises(KitsError, match=rf"^(prepare: )?{re.escape(key)}=nowhere: no such folder; give the data"):
        plan(checked(command, given), given)


def test_a_cache_is_trained_on_and_scans_are_scored_and_shown_where_the_data_set_of_the_environment_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KITS_DATA", "not_mounted")
    assert checked("train", ["stage=coarse"], prepared=False).data.root == "not_mounted"
    assert checked("evaluate", ["prediction=x", "truth=x", "output=out"]).data.root == "not_mounted"
    assert checked("report", ["image=x", "prediction=x", "output=out"]).data.root == "not_mounted"


@pytest.mark.parametrize("key", ["input", "truth"])
def test_scans_that_are_not_there_are_told_before_both_networks_are_trained(key: str) -> None:
    with pytest.raises(KitsError, match=f"^{key}=nowhere: no such file or folder; check the path"):
        plan_of(f"{key}=nowhere")


def test_an_unknown_study_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="take one of best, demo, fast, gpu, painted, paper"):
        plan_of(study="papers")


def test_preparing_asks_for_the_data_and_the_split_of_the_recipes(tmp_path: Path) -> None:
    plan = plan_of("data.coarse_size=128", "+coarse.sampling.patch=[32,128,128]", "split.validation_cases=7")
    step = plan.preparing(plan.coarse)
    assert {"split=paper", "split.validation_cases=7", "data.coarse_size=128"} <= set(step.arguments)
    assert step.config["data"]["coarse_size"] == 128
    assert step.config["data"]["cache"] == plan.fine.data.cache == "out/cache"


def test_what_a_data_sets_ids_mean_is_said_to_every_step_that_reads_its_label_maps(tmp_path: Path) -> None:
    plan = plan_of("data.labels={kidney:[1,4],tumor:2}", "split=folds", "split.k=2", "fold=1", study="demo")
    write_split(tmp_path / "out" / "cache")
    steps = {step.name: step for step in plan.steps()}
    for name in ("prepare", "coarse", "fine", "evaluate", "report"):
        assert parse(Data, steps[name].config["data"], "data").ids == {0: 0, 1: 1, 2: 2, 4: 1}, name


@pytest.mark.parametrize("name", ["case_00007", "patient_017"])
def test_boxes_are_sought_of_the_prepared_cases_alone_whatever_others_are_called(tmp_path: Path, name: str) -> None:
    write_split(tmp_path / "out" / "cache")
    (tmp_path / "tree" / name).mkdir()
    (tmp_path / "tree" / name / "imaging.nii.gz").touch()
    boxes = {step.name: step for step in folds_of("stage=coarse", "split.k=2").steps()}["boxes"]
    assert boxes.config["cases"] == ["case_00000", "case_00001"]


def test_joined_slices_of_a_recipe_are_prepared_so() -> None:
    plan = plan_of(study="fast")
    step = plan.preparing(plan.coarse)
    assert "data.coarse_z_mm=3.0" in step.arguments
    asked, coarse, fine = map(cache_settings, (parse(Data, step.config["data"]), plan.coarse.data, plan.fine.data))
    assert asked == coarse == fine


def write_split(cache: Path) -> None:
    cache.mkdir(parents=True)
    settings = {"kind": "folds", "seed": 0, "k": 2}
    (cache / "splits.json").write_text(
        json.dumps({"settings": settings, "parts": {"fold0": ["case_00000"], "fold1": ["case_00001"]}})
    )


def test_rois_out_of_fold_need_every_coarse_fold_and_the_validation_cases_their_own(tmp_path: Path) -> None:
    plan = plan_of("split=folds", "split.k=2", "fold=1", "+fine.data.roi=oof", study="demo")
    write_split(tmp_path / "out" / "cache")
    steps = {step.name: step for step in plan.steps()}
    assert list(steps) == ["prepare", "coarse0", "coarse1", "boxes", "fine", "predict", "evaluate", "report"]
    assert [steps[name].config["fold"] for name in ("coarse0", "coarse1", "fine")] == [0, 1, 1]
    assert steps["fine"].config["data"]["boxes"] == str(steps["boxes"].outputs[0])
    assert steps["predict"].config["coarse"] == "out/coarse1/best.ckpt"
    assert steps["report"].config["cases"] == ["case_00001"]
    # What one step makes the next one reads, so that a change runs on through the plan.
    for earlier, later in (("coarse0", "boxes"), ("boxes", "fine"), ("fine", "predict")):
        assert set(steps[earlier].outputs) & set(steps[later].inputs.values())
    assert list(steps["evaluate"].after) == list(steps["report"].after) == ["predict"]


def folds_of(*arguments: str) -> AllFolds:
    given = ["data.root=tree", "output=out", *arguments]
    return AllFolds(checked("crossval", given), given)


def test_every_case_is_predicted_by_the_networks_of_its_own_fold(tmp_path: Path) -> None:
    write_split(tmp_path / "out" / "cache")
    assert [step.name for step in folds_of("stage=coarse", "split.k=2").steps()] == [
        "prepare", "coarse0", "coarse1", "boxes"
    ]  # fmt: skip
    plan = folds_of("stage=fine", "split.k=2")
    with pytest.raises(KitsError, match=r"coarse0/best.ckpt: missing; .* run kits.crossval stage=coarse"):
        list(plan.steps())
    for fold in (0, 1):
        (tmp_path / "out" / f"coarse{fold}").mkdir()
        (tmp_path / "out" / f"coarse{fold}" / "best.ckpt").touch()
    steps = {step.name: step for step in plan.steps()}
    assert list(steps) == ["prepare", "fine0", "fine1", "predict0", "predict1", "evaluate"]
    for fold in (0, 1):
        config = steps[f"predict{fold}"].config
        assert (config["fold"], config["subset"]) == (fold, "validation")
        assert config["coarse"].endswith(f"coarse{fold}/best.ckpt")
        assert config["fine"].endswith(f"fine{fold}/best.ckpt")
        assert list(steps[f"predict{fold}"].outputs) == [Path(f"out/predictions/case_0000{fold}.nii.gz")]
    assert steps["evaluate"].config["subset"] == "all"
    assert read_split(tmp_path / "out" / "cache" / "splits.json").subset("all", None) == ["case_00000", "case_00001"]
    assert "fine0/best.ckpt" in plan.advice()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage=coarse", "fold=1"], "fold: every fold is trained here"),
        (["stage=coarse", "split=paper"], "split=paper: has no folds"),
        (["stage=coarse", "model.widthz=[2]"], "model.widthz: no such key"),
        (["stage=fine", "+predict.devise=cpu"], "devise: no such key"),
    ],
)
def test_a_cross_validation_that_cannot_work_is_refused_at_once(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(KitsError, match=words):
        folds_of(*arguments)


def test_the_table_of_rois_has_means_and_intervals_by_hand(tmp_path: Path) -> None:
    case = {
        "shape": [10, 10, 10],
        "spacing": [2.0, 1.0, 1.0],
        "warnings": ["a large ROI"],
        "checkpoint": "a",
        "whole_body": False,
    }
    half = [[[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]]]
    cases = {
        "case_00000": {**case, "boxes_mm": half, "coverage": {"kidney": 1.0, "tumor": 0.5}},
        "case_00001": {**case, "boxes_mm": half + half, "coverage": {"kidney": 0.5}, "whole_body": True},
    }
    content = {"kits_boxes": 1, "frame": "", "checkpoints": {"a": {"sha256": "", "trained_on": []}}, "cases": cases}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    table = write_coverage(tmp_path / "boxes.json", parse(Bootstrap, {"resamples": 200, "level": 0.95, "seed": 0}))
    columns = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["columns"]
    assert columns["kidney_in_rois"]["mean"] == 0.75
    assert (columns["kidney_in_rois"]["low"], columns["kidney_in_rois"]["high"]) == (0.5, 1.0)
    assert (columns["tumor_in_rois"]["mean"], columns["tumor_in_rois"]["cases"]) == (0.5, 1)
    assert (columns["rois"]["mean"], columns["rois_of_scan"]["mean"]) == (1.5, 0.75)
    assert table.splitlines()[2].split() == ["case_00001", "0.5000", "-", "2.0000", "1.0000", "1.0000"]
    assert columns["nothing_found"]["mean"] == 0.5
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[2] == "case_00001,0.5,,2.0,1.0,1.0"
