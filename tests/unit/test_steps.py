"""Steps: whose an override is, when a step runs again and why, how an interrupted one goes on, what stops a plan early."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kits.config import choices_of
from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.crossval import OWN as CROSSVAL_KEYS
from kits.data.cache import cache_settings
from kits.data.splits import read_split
from kits.pipeline import OWN, STEPS
from kits.workflows.building import Builder
from kits.workflows.command_line import gathered, later_wins, quoted, spelled
from kits.workflows.coverage import write_coverage
from kits.workflows.folds import Folds
from kits.workflows.running import Runner, arguments_of
from kits.workflows.stamps import AGAIN, BEGIN, GO_ON, MISSING, SKIP, Stamp, fingerprint, judge, read_stamp, settings_of
from kits.workflows.step import Step, run_process
from kits.workflows.two_stages import TwoStages


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans name their folders from the working one."""
    monkeypatch.chdir(tmp_path)


def test_overrides_go_to_the_steps_whose_name_stands_before_them() -> None:
    arguments = [
        "experiment=demo",
        "output=x",
        "fine.model.fusion=gate",
        "+fine.a.b=1",
        "fine.loss=dice",
        "seed=3",
        "--cfg",
        "job",
    ]
    found = gathered(arguments, OWN, STEPS, rest="train")
    assert found[:3] == ["experiment=demo", "output=x", "--cfg"]
    assert "overrides.fine=['model.fusion=gate','+a.b=1','loss=dice']" in found
    assert "overrides.train=['seed=3','job']" in found


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


STAMP = Stamp(True, {"model.fusion": "concat", "seed": 0}, {"the split": "1"}, {"fine/best.ckpt": "2"})


def test_a_step_runs_exactly_when_its_stamp_no_longer_holds() -> None:
    same = dict(STAMP.settings), dict(STAMP.inputs), dict(STAMP.outputs)
    assert judge(STAMP, *same).todo == SKIP
    assert judge(None, *same).todo == BEGIN
    other = judge(STAMP, {"model.fusion": "gate", "seed": 0}, *same[1:])
    assert (other.todo, other.why) == (AGAIN, "runs again, because model.fusion changed")
    assert judge(STAMP, same[0], {"the split": "9"}, same[2]).why == "runs again, because the split changed"
    assert judge(STAMP, {**same[0], "new": 1}, *same[1:]).todo == AGAIN
    assert judge(STAMP, *same[:2], {"fine/best.ckpt": MISSING}).why == "runs again, because fine/best.ckpt is gone"
    assert judge(STAMP, *same[:2], {"fine/best.ckpt": "3"}).todo == AGAIN
    begun = replace(STAMP, done=False, outputs={})
    assert judge(begun, *same).todo == GO_ON
    assert judge(begun, {**same[0], "seed": 1}, *same[1:]).todo == AGAIN, "another configuration never goes on with an old run"


def test_places_and_means_are_no_settings() -> None:
    one = {"data": {"root": "a", "workers": 1, "coarse_size": 64}, "run_dir": "x", "logger": {"name": "csv"}, "seed": 0}
    other = {"data": {"root": "b", "workers": 2, "coarse_size": 64}, "run_dir": "y", "logger": {"name": "wandb"}, "seed": 0}
    assert settings_of(one) == settings_of(other) == {"data.coarse_size": 64, "seed": 0}


def test_a_fingerprint_tells_content_of_files_and_the_state_of_folders(tmp_path: Path) -> None:
    output = tmp_path / "tree" / "out"
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second, tmp_path / "tree" / "case" / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("same")
    assert fingerprint(first, output) == fingerprint(second, output)
    assert fingerprint(tmp_path / "nothing", output) == MISSING
    before = fingerprint(tmp_path / "tree", output)
    output.mkdir()
    (output / "result").write_text("results inside a tree do not change it")
    assert fingerprint(tmp_path / "tree", output) == before
    (tmp_path / "tree" / "case" / "x").write_text("more")
    assert fingerprint(tmp_path / "tree", output) != before


def training(folder: Path, **config: Any) -> Step:
    settings = {"run_dir": str(folder / "fine"), "overwrite": False, **config}
    return Step("fine", "train", ["stage=fine"], settings, {}, {"fine/best.ckpt": folder / "fine" / "best.ckpt"})


def test_an_interrupted_training_goes_on_and_a_changed_one_begins_anew(tmp_path: Path) -> None:
    step, run = training(tmp_path), tmp_path / "fine"
    run.mkdir()
    assert arguments_of(step, BEGIN) == ["stage=fine"], "a run that a person trained there is refused by kits.train"
    assert arguments_of(step, AGAIN) == ["stage=fine", "overwrite=true"]
    assert arguments_of(step, GO_ON) == ["stage=fine", "overwrite=true"], "killed before it had written its configuration"
    (run / "config.yaml").write_text("stage: fine")
    (run / "manifest.json").write_text('{"finished": false}')
    assert arguments_of(step, GO_ON) == [f"resume={run}"]
    (run / "manifest.json").write_text('{"finished": true}')
    assert arguments_of(step, GO_ON) is None, "killed after the training and before the stamp"


def test_a_failing_step_is_named_with_the_way_on_and_its_stamp_says_begun(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = compose("evaluate", [f"prediction={tmp_path}/no", f"truth={tmp_path}", f"output={tmp_path}/scores"])
    step = Step("evaluate", "evaluate", [f"{key}={config[key]}" for key in ("prediction", "truth", "output")], config, {}, {})
    runner = Runner(tmp_path, overwrite=False)
    with pytest.raises(KitsError, match=r"evaluate: the step kits\.evaluate ended with exit code 1.*; the same command goes on"):
        runner.run(step)
    shown = capfd.readouterr()
    assert "evaluate: runs\n" in shown.out
    assert f"$ python -m kits.evaluate prediction={tmp_path}/no" in shown.out
    assert "no case_XXXXX" in shown.err
    stamp = read_stamp(tmp_path / "steps" / "evaluate.json")
    assert stamp is not None
    assert not stamp.done
    (tmp_path / "steps" / "evaluate.json").write_text("damaged")
    assert read_stamp(tmp_path / "steps" / "evaluate.json") is None


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
        run_process("phantom", [f"output={output}", "cases=200", "matrix=128", "workers=1"])
    thread.join()
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM during kits.phantom; the same command goes on from there" in capfd.readouterr().err
    assert len(list(output.glob("case_*"))) < 200


@cache
def once(command: Callable[[str, list[str]], dict[str, Any]], name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """What a command of `kits.config.composing` gives. Plans ask for the same again and again, and Hydra is slow to answer."""
    return command(name, list(overrides))


def builder_of(config: dict[str, Any]) -> Builder:
    """Of plans in the working folder, so that all tests ask for the same."""
    return Builder(
        Path("out"),
        config["overrides"],
        lambda name, overrides: once(compose, name, tuple(overrides)),
        lambda name, overrides: once(checked, name, tuple(overrides)),
    )


def plan_of(*arguments: str, **config: Any) -> TwoStages:
    overrides = compose("pipeline", gathered(["data.root=tree", *arguments], OWN, STEPS, rest="train"))
    builder = builder_of(overrides)
    return TwoStages({**overrides, "experiment": {"source": "paper"}, **config}, choices_of("experiment"), builder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fine.model.fusin=gate"], "^fine: model.fusin: no such key; did you mean model.fusion?"),
        (["predict.devise=cpu"], "^predict: devise: no such key; did you mean device?"),
        (["evaluate.bootstrap.level=0.9", "report.casses=1"], "^report: casses: no such key"),
        (["fine.data.coarse_size=64"], r"data\.coarse_size: the coarse stage asks for 256, the fine stage for 64"),
        (["fine.data.roi=oof"], "need folds; add split=folds fold=0"),
    ],
)
def test_a_mistake_in_any_step_is_told_before_the_first_runs(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(KitsError, match=words) as caught:
        plan_of(*arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_study_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="take one of best, demo, fast, gpu, painted, paper"):
        plan_of(experiment={"source": "papers"})


def test_preparing_asks_for_the_data_and_the_split_of_the_recipes(tmp_path: Path) -> None:
    plan = plan_of("data.coarse_size=128", "coarse.sampling.patch=[32,128,128]", "split.validation_cases=7")
    step = plan.builder.preparing(plan.coarse)
    assert {"split=paper", "split.validation_cases=7", "data.coarse_size=128"} <= set(step.arguments)
    assert step.config["data"]["coarse_size"] == 128
    assert step.config["data"]["cache"] == plan.fine["data"]["cache"] == "out/cache"


def test_joined_slices_of_a_recipe_are_prepared_so() -> None:
    plan = plan_of(experiment={"source": "fast"})
    step = plan.builder.preparing(plan.coarse)
    assert "data.coarse_z_mm=3.0" in step.arguments
    assert cache_settings(step.config["data"]) == cache_settings(plan.coarse["data"]) == cache_settings(plan.fine["data"])


def write_split(cache: Path) -> None:
    cache.mkdir(parents=True)
    settings = {"kind": "folds", "seed": 0, "k": 2}
    (cache / "splits.json").write_text(
        json.dumps({"settings": settings, "parts": {"fold0": ["case_00000"], "fold1": ["case_00001"]}})
    )


def test_rois_out_of_fold_need_every_coarse_fold_and_the_validation_cases_their_own(tmp_path: Path) -> None:
    plan = plan_of("split=folds", "split.k=2", "fold=1", "fine.data.roi=oof", experiment={"source": "demo"})
    write_split(tmp_path / "out" / "cache")
    steps = {step.name: step for step in plan.steps()}
    assert list(steps) == ["prepare", "coarse0", "coarse1", "boxes", "fine", "predict", "evaluate", "report"]
    assert [steps[name].config["fold"] for name in ("coarse0", "coarse1", "fine")] == [0, 1, 1]
    assert steps["fine"].config["data"]["boxes"] == str(steps["boxes"].outputs["boxes.json"])
    assert steps["predict"].config["coarse"] == "out/coarse1/best.ckpt"
    assert steps["report"].config["cases"] == ["case_00001"]
    # What one step makes the next one reads, so that a change runs on through the plan.
    assert steps["coarse0"].outputs.keys() & steps["boxes"].inputs.keys()
    assert steps["boxes"].outputs.keys() & steps["fine"].inputs.keys()
    assert steps["fine"].outputs.keys() & steps["predict"].inputs.keys()
    assert steps["predict"].outputs.keys() & steps["evaluate"].inputs.keys()


def folds_of(*arguments: str) -> Folds:
    given = gathered(["data.root=tree", "output=out", *arguments], CROSSVAL_KEYS, STEPS, rest="train")
    config = compose("crossval", given)
    return Folds(config, builder_of(config))


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
        assert list(steps[f"predict{fold}"].outputs) == [f"predictions/case_0000{fold}.nii.gz"]
    assert steps["evaluate"].config["subset"] == "all"
    assert read_split(tmp_path / "out" / "cache" / "splits.json").subset("all", None) == ["case_00000", "case_00001"]
    assert "fine0/best.ckpt" in plan.advice()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage=coarse", "fold=1"], "fold: every fold is trained here"),
        (["stage=coarse", "split=paper"], "split=paper: has no folds"),
        (["stage=coarse", "model.widthz=[2]"], "model.widthz: no such key"),
        (["stage=fine", "predict.devise=cpu"], "devise: no such key"),
    ],
)
def test_a_cross_validation_that_cannot_work_is_refused_at_once(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(KitsError, match=words):
        folds_of(*arguments)


def test_the_table_of_rois_has_means_and_intervals_by_hand(tmp_path: Path) -> None:
    case = {"shape": [10, 10, 10], "spacing": [2.0, 1.0, 1.0], "warnings": [], "checkpoint": "a"}
    half = [[[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]]]
    cases = {
        "case_00000": {**case, "boxes_mm": half, "coverage": {"kidney": 1.0, "tumor": 0.5}},
        "case_00001": {**case, "boxes_mm": half + half, "coverage": {"kidney": 0.5}},
    }
    content = {"kits_boxes": 1, "frame": "", "checkpoints": {"a": {"sha256": "", "trained_on": []}}, "cases": cases}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    table = write_coverage(tmp_path / "boxes.json", {"resamples": 200, "level": 0.95, "seed": 0})
    columns = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["columns"]
    assert columns["kidney_in_rois"]["mean"] == 0.75
    assert (columns["kidney_in_rois"]["low"], columns["kidney_in_rois"]["high"]) == (0.5, 1.0)
    assert (columns["tumor_in_rois"]["mean"], columns["tumor_in_rois"]["cases"]) == (0.5, 1)
    assert (columns["rois"]["mean"], columns["rois_of_scan"]["mean"]) == (1.5, 0.75)
    assert table.splitlines()[2].split() == ["case_00001", "0.5000", "-", "2.0000", "1.0000", "0.0000"]
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[2] == "case_00001,0.5,,2.0,1.0,0.0"
