"""A user's mistakes on the command line are one line that says what to do."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from kits.config import conf_dir, plain
from kits.config.command import command
from kits.config.composing import checked, compose
from kits.config.schema import parse, schema_of
from kits.config.schema.commands import COMMANDS as SCHEMAS
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.data.cache import cache_settings

CONF = conf_dir()
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in {"base"})
RECIPES = sorted(str(path.relative_to(CONF / "experiment").with_suffix("")) for path in (CONF / "experiment").rglob("*.yaml"))
REQUIRED = re.compile(r"^([\w.]+): \?\?\?", re.MULTILINE)


def required(name: str) -> list[str]:
    """`key=x` for every mandatory key of a command, and a stage where one is needed."""
    keys = REQUIRED.findall((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    needed = {
        "train": ["stage=coarse"],
        "crossval": ["stage=coarse"],
        "convert": ["data=nnunet"],
        "export": ["coarse=x"],
    }
    return [f"{key}=x" for key in keys] + needed.get(name, [])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_composes(name: str) -> None:
    assert isinstance(compose(name, required(name)), dict)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_and_chooses_its_stage(recipe: str) -> None:
    assert compose("train", [f"experiment={recipe}"])["stage"] in ("coarse", "fine")


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same in kind too: 1 is not 1.0, and what is hashed would differ."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_typed_options_are_the_configuration_again(name: str) -> None:
    if name == "train":
        for recipe in RECIPES:
            composed = compose("train", [f"experiment={recipe}"])
            assert same(plain(parse(schema_of("train"), composed)), composed)
    elif name in SCHEMAS:
        composed = compose(name, required(name) + (["cases=1"] if name == "phantom" else []))
        options = plain(parse(schema_of(name), composed))
        # These leave the keys of kits.train to its own schema.
        partly = name in ("pipeline", "crossval", "dashboard")
        assert same(options, {key: composed[key] for key in options} if partly else composed)


def test_typed_options_keep_whole_numbers_and_names_that_are_no_utf8() -> None:
    given = ["coarse=[a,b]", "fine=caf\udce9", "input=x", "output=y", "margin_mm=5", "min_component_ml=0.5"]
    options = checked("predict", given)
    assert (options.coarse, options.fine) == (["a", "b"], "caf\udce9")
    assert same([options.margin_mm, options.min_component_ml], [5, 0.5])
    assert same(plain(options), compose("predict", given))


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_the_papers_recipe_has_the_papers_numbers(stage: str) -> None:
    config = compose("train", [f"experiment=paper/{stage}"])
    data = config["data"]
    assert config["stage"] == stage
    assert data["window_hu"] == [-100, 300]
    assert (data["coarse_size"], data["coarse_z_mm"]) == (256, None)
    assert data["roi_rule"] == {"count": 2, "min_voxels": 4000}
    assert (data["split"]["kind"], data["split"]["validation_cases"]) == ("paper", 21)
    factors = {"encoder_factor": 1.0, "encoder_decay": 1.0, "init_factor": 1.0}
    assert config["optimizer"] == {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, **factors}
    assert config["scheduler"] == {"name": "constant", "warmup": 0.0}
    assert config["trainer"]["max_epochs"] == 100
    assert config["callbacks"]["early_stopping"]["patience"] == 5
    assert data["augmentation"] == {}
    assert config["roi"]["margin_mm"] == 0
    if stage == "coarse":
        assert (config["loss"]["name"], config["loss"]["bias"]) == ("bias_dice", 3.0)
        assert (config["roi"]["count"], config["roi"]["min_voxels"], config["roi"]["min_ml"]) == (2, 4000, None)
    else:
        assert (config["training"], len(config["model"]["sources"])) == ("parallel", 3)
        assert all(source["weights"] == "imagenet" for source in config["model"]["sources"])
        assert config["roi"]["grow_rounds"] == 0
        assert not any(config["postprocess"].values())


def test_the_best_recipe_has_what_the_studies_support() -> None:
    coarse, fine = (compose("train", [f"experiment=best/{stage}"]) for stage in ("coarse", "fine"))
    assert (coarse["loss"]["name"], coarse["loss"]["bias"], coarse["roi"]["min_ml"]) == ("dice_ce", 3.0, 20)
    assert (fine["model"]["operator"], fine["model"]["fusion"], fine["training"]) == ("p3d", "concat", "parallel")
    assert [source["weights"] for source in fine["model"]["sources"]] == ["imagenet"] * 3
    for config in (coarse, fine):
        assert config["scheduler"]["name"] == "cosine"
        assert config["data"]["coarse_z_mm"] is None
        # At the paper's patience of 5 a training would stop before a rate that falls to the last epoch has fallen.
        assert config["callbacks"]["early_stopping"]["patience"] == 20


def test_the_fast_recipe_is_the_best_with_joined_slices_one_source_and_fewer_steps() -> None:
    for stage in ("coarse", "fine"):
        best, fast = (compose("train", [f"experiment={study}/{stage}"]) for study in ("best", "fast"))
        assert fast["data"]["coarse_z_mm"] == 3.0
        steps = [
            config["trainer"]["max_epochs"] * config["sampling"]["patches_per_epoch"] // config["sampling"]["batch_size"]
            for config in (best, fast)
        ]
        assert steps[1] == steps[0] // 10
        for group in ("loss", "optimizer", "scheduler", "roi", "inference"):
            assert fast[group] == best[group]
        assert {key for key in fast["model"] if fast["model"][key] != best["model"][key]} == (
            {"sources"} if stage == "fine" else set()
        )
    assert len(fast["model"]["sources"]) == 1


@pytest.mark.parametrize("study", sorted({recipe.rpartition("/")[0] for recipe in RECIPES}))
def test_the_stages_of_a_study_read_one_cache(study: str) -> None:
    stages = [f"{study}/{stage}" for stage in ("coarse", "fine") if f"{study}/{stage}" in RECIPES]
    settings = [cache_settings(parse(Data, compose("train", [f"experiment={recipe}"])["data"])) for recipe in stages]
    assert settings[1:] == settings[:-1]


@pytest.mark.parametrize(
    ("group", "choice"),
    [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "experiment"],
)
def test_every_choice_of_every_group_composes(group: str, choice: str) -> None:
    if group == "measures":  # evaluation's alone
        assert group in compose("evaluate", [f"{group}={choice}", "prediction=x", "truth=y", "output=z"])
        return
    overrides = [f"{group}={choice}"] + (["stage=coarse"] if group != "stage" else [])
    named = "model.network=some" if group == "model" else f"{group}._target_=some.Part"
    overrides += [named] if choice == "own" else []
    assert group in compose("train", overrides)


def test_the_stages_keep_the_papers_numbers() -> None:
    coarse, fine = compose("train", ["stage=coarse"]), compose("train", ["stage=fine"])
    for config in (coarse, fine):
        assert config["data"]["window_hu"] == [-100, 300]
        assert config["data"]["coarse_size"] == 256
        optimizer = {
            "name": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "encoder_factor": 1.0,
            "encoder_decay": 1.0,
            "init_factor": 1.0,
        }
        assert config["optimizer"] == optimizer
        assert config["scheduler"] == {"name": "constant", "warmup": 0.0}
        assert config["trainer"]["max_epochs"] == 100
        assert config["callbacks"]["early_stopping"]["patience"] == 5
    assert compose("prepare", [])["data"]["split"]["validation_cases"] == 21
    assert (coarse["roi"]["count"], coarse["roi"]["min_voxels"]) == (2, 4000)
    assert len(fine["model"]["sources"]) == 3


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("train", ["stage=coarse", "trainer.max_epoch=3"], ["trainer.max_epoch", "did you mean trainer.max_epochs"]),
        ("train", ["stage=middle"], ["stage=middle", "coarse, fine"]),
        ("train", [], ["stage: no value given; add stage=... with one of coarse, fine"]),
        ("train", ["experiment=demo/none"], ["experiment=demo/none", "demo/coarse"]),
        ("train", ["stage=coarse", "loss=none"], ["loss=none", "bias_dice"]),
        ("train", ["stage"], ["stage: cannot be read; give key=value"]),
        ("train", ["stage=coarse", "seed=my run's"], ["seed=my run's: cannot be read", "quote"]),
        ("crossval", ["stage=coarse", "k=3"], ["k: no such key; did you mean split.k?"]),
        ("train", ["stage=coarse", "=3"], ["=3: cannot be read; give key=value"]),
        (
            "train",
            ["stage=coarse", "loss.bias=1,2"],
            ["key=[a,b]; for a training with each: python -m kits.train -m stage="],
        ),
        (
            "prepare",
            ["data.exclude=case_00001,case_00002"],
            ["several values where one is taken; a list has brackets"],
        ),
        ("predict", ["coarse=a"], ["input, output", "input=..."]),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(name: str, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(KitsError) as caught:
        compose(name, overrides)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_fault_inside_a_command_is_one_line_and_exit_code_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @command("prepare")
    def task(config: dict) -> None:
        raise KitsError("data.root: broken; mend it")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare", "data.root=."])
    with pytest.raises(SystemExit) as caught:
        task()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "kits.prepare: data.root: broken; mend it\n"
    assert not list(tmp_path.iterdir()), "a command that failed left files behind"


def test_a_bug_shows_its_traceback_once_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @command("prepare")
    def task(options: Any) -> None:
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr(sys, "argv", ["prepare", "data.root=."])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # Hydra's own word for none
    with pytest.raises(SystemExit) as caught:
        task()
    told = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1
    assert told[0] == "Traceback (most recent call last):"
    assert any("in task" in line for line in told)
    assert not any("hydra" in line.lower() for line in told)
    assert told[-1].startswith("kits.prepare: unexpected ZeroDivisionError: by nothing; please report it")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ZeroDivisionError):
        task()


@pytest.mark.parametrize(
    "name", ["predict", "boxes", "evaluate", "report", "measure", "download", "phantom", "export", "pipeline"]
)
def test_an_output_that_is_a_file_is_refused_when_the_configuration_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    given = [one for one in required(name) if not one.startswith("output=")]
    for place in ("taken", "taken/below"):  # the second is told of with the file above it
        with pytest.raises(KitsError, match=r"^output=.*taken.* is a file; give a folder|^output=.*taken: is a f"):
            checked(name, [*given, f"output={tmp_path / place}", *(["cases=1"] if name == "phantom" else [])])


def said(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tasks: list[Any] | None = None
) -> str:
    """What kits.train says to a command line; where it can work, the task gets its options and nothing is said."""
    main = command("train")(lambda options: None if tasks is None else tasks.append(options))
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with suppress(SystemExit):
        main()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage=coarse", "--loss.bias=2"], "--loss.bias=2: keys have no dashes; give loss.bias=2 (of `wandb agent`:"),
        (["stage=coarse", "--fast"], "--fast: no such flag; --help names them"),
        (["stage=coarse", "--cfg", "all_of_it"], "argument --cfg/-c: invalid choice: 'all_of_it'"),
        (["stage=coarse", "--cfg", "job", "loss=dice"], "loss=dice: stands behind a flag; give keys first and flags last"),
        (["stage=coarse", "trainer.max_epoch=3"], "trainer.max_epoch: no such key; did you mean trainer.max_epochs?"),
        (["stage=coarse", "trainer={max_epoch:3}"], "trainer.max_epoch: no such key; did you mean trainer.max_epochs?"),
        (
            ["stage=coarse", "loss={_target_:a.b}"],
            "loss._target_: a part of your own has a choice of its own; give loss=own",
        ),
        (["stage=coarse", "max_epochs=3"], "max_epochs: no such key; did you mean trainer.max_epochs?"),
        (["stage=coarse", "+trainer.fast=true"], "trainer.fast: no such key"),
        (["stage=coarse", "loss=none"], "loss=none: no such choice; take one of bias_dice, dice"),
        (["stage=coarse", "seed=4294967296"], "seed=4294967296: give a whole number from 0 to 4294967295"),
        (["stage="], "stage=: no such choice; take one of coarse, fine"),
        (["+stage=coarse"], "+stage: is chosen without a plus; give stage=... with one of coarse, fine"),
        (["++stage=coarse"], "+stage: is chosen without a plus"),
        (["stage=coarse", "sampling.patch=[1,2"], "sampling.patch=[1,2: cannot be read; give key=value"),
        (["loss=dice"], "stage: no value given; add stage=... with one of coarse, fine"),
        (["stage=coarse", "loss.bias=2,3"], "loss.bias=2,3: several values where one is taken"),
        (["stage=coarse", "run_dir=${nowhere}"], "configuration: Interpolation key 'nowhere' not found"),
        (["stage=coarse", "loss.bias=0.5"], "loss.bias=0.5: give a number of at least 1"),
        (["stage=coarse", "~fold"], "~fold: is null already; leave this out"),
        (["stage=coarse", "~folt"], "~folt: no such key; did you mean fold?"),
        (["stage=coarse", "data.window=3"], "data.window: no such key; did you mean data.window_hu?"),
        (
            ["stage=coarse", f"run_dir=a/{'ü' * 128}/b"],
            f"run_dir=a/{'ü' * 128}/b: give a path, each name in it of at most 255 bytes",
        ),
        (["stage=coarse", "~loss.bias"], "loss.bias: no value given; give a number of at least 1"),
        (["stage=coarse", "data.labels.kidney=3"], "data.labels.kidney: data.labels is null; give data.labels={kidney:3}"),
        (["stage=coarse", "+data.cache=x"], "+data.cache: is there already; give data.cache=... without a plus"),
        (["stage=coarse", "run_dir=/dev/null/x"], "run_dir=/dev/null/x: /dev/null is a file; give a folder"),
        (["stage=coarse", "--resolve"], "The --resolve flag can only be used in conjunction with --cfg"),
        (["stage=coarse", "--config-dir", "nowhere"], "Additional config directory"),
    ],
)
def test_what_hydra_refuses_is_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    told = said(arguments, monkeypatch, capsys)
    assert told.startswith(f"kits.train: {words}")
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_configuration_may_ask_for_several_runs_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    recipe = "# @package _global_\nhydra:\n  mode: MULTIRUN\n"
    (tmp_path / "experiment" / "several.yaml").write_text(recipe, encoding="utf-8")
    asked = ["experiment=several", "--config-dir", str(tmp_path)]
    # The first trial is refused, so it is a trial: of one run Hydra would refuse the comma.
    for given in (["hydra.mode=MULTIRUN"], asked):
        assert "loss.bias=0.5: give a number of" in said(["stage=coarse", "loss.bias=0.5,2", *given], monkeypatch, capsys)
        assert "loss.bias=0.5: give a number of" in said(["stage=coarse", "loss.bias=0.5", *given], monkeypatch, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["experiment"]


def test_what_hydras_manual_promises_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.json").write_text("{}")
    (tmp_path / "own" / "loss").mkdir(parents=True)
    text = (CONF / "loss" / "bias_dice.yaml").read_text(encoding="utf-8").replace("bias: 3.0", "bias: 7.0")
    (tmp_path / "own" / "loss" / "mine.yaml").write_text(text, encoding="utf-8")
    tasks: list[Any] = []
    for given in (["--config-dir", "own"], [f"hydra.searchpath=[file://{tmp_path}/own]"]):
        assert said(["stage=coarse", "loss=mine", *given], monkeypatch, capsys, tasks) == ""
    assert said(["stage=coarse", "hydra.run.dir=elsewhere", "++trainer.profiler=simple"], monkeypatch, capsys, tasks) == ""
    assert [options.loss.bias for options in tasks] == [7.0, 7.0, 3.0]
    assert [options.run_dir for options in tasks] == ["runs/coarse", "runs/coarse", "elsewhere"]
    assert tasks[2].trainer.profiler == "simple"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--cfg", "job"], "run_dir: ${oc.env:KITS_OUTPUT,runs}/${stage}"),
        (["--cfg", "job", "--package", "loss"], "# @package loss\nname: bias_dice\nbias: 3.0"),
        (["--cfg", "job", "--resolve"], "run_dir: runs/coarse"),
        (["--cfg", "hydra"], "job_logging"),
        (["~split", "--cfg", "job"], "stage: coarse"),
    ],
)
def test_hydras_questions_are_answered(
    flags: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "stage=coarse", *flags])
    command("train")(lambda options: None)()
    assert words in capsys.readouterr().out


def test_info_tells_the_defaults_list() -> None:
    call = [sys.executable, "-m", "kits.train", "stage=coarse", "--info", "defaults"]
    told = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=CONF.parent)
    assert "| stage/coarse " in told.stdout


def test_the_environment_file_gives_the_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kits.config.command import load_environment

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KITS_DATA", "")
    monkeypatch.delenv("KITS_DATA")
    (tmp_path / ".env").write_text("KITS_DATA=/somewhere/kits\n")
    load_environment()
    assert compose("prepare", [])["data"]["root"] == "/somewhere/kits"


@pytest.mark.parametrize("content", [b"KITS_CACHE=/x\xff\n", b"KITS_CACHE=/x\0y\n"])
def test_an_environment_file_that_is_no_text_is_one_line(
    content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KITS_CACHE", raising=False)
    (tmp_path / ".env").write_bytes(content)
    told = said(["stage=coarse"], monkeypatch, capsys)
    assert told.startswith("kits.train: .env of the working folder: cannot be read (")
    assert told.count("\n") == 1


def test_a_working_folder_that_is_gone_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert said(["stage=coarse"], monkeypatch, capsys) == "kits.train: the working folder is gone; go to one that exists\n"


def test_files_of_the_working_folder_hide_no_module_of_python_or_of_a_library(tmp_path: Path) -> None:
    for name in ("enum", "re", "pathlib", "random", "tokenize", "copy", "tempfile", "socket", "numpy", "yaml", "hydra", "torch"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    call = [
        sys.executable,
        "-m",
        "kits.phantom",
        "output=phantoms",
        "cases=2",
        "matrix=64",
        "spacing_xy=[4,4.5]",
        "spacing_z=[6,7]",
        "workers=2",
    ]
    told = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert len(list((tmp_path / "phantoms").glob("*/imaging.nii.gz"))) == 2
    loads = """
        import sys
        sys.path.append(sys.path.pop(0))
        from types import SimpleNamespace
        from kits.data.datasets import worker_context
        worker = worker_context(SimpleNamespace(augmentation=SimpleNamespace(options={}))).Process(target=print, args=("loaded",))
        worker.start()
        worker.join()
    """
    told = subprocess.run([sys.executable, "-c", dedent(loads)], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert told.stdout == "loaded\n", told.stderr


def test_the_example_environment_names_every_variable_that_is_read() -> None:
    read = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"oc\.env:(\w+)", path.read_text(encoding="utf-8"))}
    example = (CONF.parent / ".env.example").read_text(encoding="utf-8")
    assert read
    assert {"WANDB_PROJECT", "KITS_DATA"} <= read
    ours = {name for name in read if not name.startswith("SLURM_")}  # which a cluster sets for its jobs
    assert all(f"#{name}=" in example for name in {*ours, "WANDB_API_KEY"})
