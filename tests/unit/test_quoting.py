"""A key that takes a path takes any path, as the shell hands it over; Hydra's grammar has no say in it."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from kits.config import conf_dir
from kits.config.composing import compose, with_paths
from kits.config.quoting import quote_paths, quoted
from kits.config.schema import schemas_of
from kits.config.schema.refusals import path_keys
from kits.core.errors import KitsError
from kits.phantom import main as phantom

# All but those that read as a list, such as `[x]`, unless a file has that very name.
PATHS = [
    "/data/Müller (1)/scan.nii.gz",
    "a,b.nii.gz",
    "/a/b=c^d #1 & co; x|y <z> 100% `pwd` !?*@.nii.gz",
    "[1] old/{a}: b.nii.gz",
    "{a:1}",
    "it's",
    'say "so"',
    "'half",
    "C:\\scans\\",
    "back\\'slash",
    "$HOME ${",
    " spaces around ",
    "2024",
    ".5",
    "../data/kits19",
    "1e5",
    "true",
    "choice(1,2)",
    "-x",
    "caf\udce9.nii.gz",
    "two\nlines",
]


def hydras(name: str, overrides: list[str]) -> Any:
    """What Hydra and OmegaConf make of overrides, without this project's checks."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return OmegaConf.to_container(hydra.compose(name, overrides=overrides), resolve=True)


def test_any_text_in_quotes_is_itself() -> None:
    rng = random.Random(0)
    pieces = [*"ab/ (),^=#&[]{}:$'\"\\~%?*!;|<>`.-+@ü\n\t\udcff", "${", "${x}", "\\${", "\\\\"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 8))) for _ in range(300)]
    assert hydras("measure", ["input=x", "output=x", f"members=[{','.join(map(quoted, texts))}]"])["members"] == texts


@pytest.mark.parametrize("path", PATHS)
def test_a_checkpoint_has_any_path(path: str) -> None:
    config = compose("predict", [f"coarse={path}", f"fine={path}", "input=x", "output=y"])
    assert config["coarse"] == config["fine"] == path


@pytest.mark.parametrize("path", PATHS)
def test_any_path_is_itself_and_quoting_twice_changes_nothing(path: str) -> None:
    for key in ("input", "output"):
        once = quote_paths([f"{key}={path}"], {key})
        assert quote_paths(once, {key}) == once
    config = compose("predict", [f"{key}={path}" for key in ("input", "output", "split_file")] + ["coarse=a", "fine=a"])
    assert config["input"] == config["output"] == config["split_file"] == path


@pytest.mark.parametrize("name", ["evaluate", "report"])
def test_commands_that_compare_take_any_path(name: str) -> None:
    keys = {"evaluate": ("prediction", "truth", "output"), "report": ("prediction", "truth", "output", "image")}[name]
    for path in PATHS:
        config = compose(name, [f"{key}={path}" for key in keys])
        assert [config[key] for key in keys] == [path] * len(keys)


def test_nested_keys_take_any_path() -> None:
    path = "/data/Müller, (1)"
    config = compose(
        "train", ["stage=coarse", *(f"{key}={path}" for key in ("data.root", "data.cache", "run_dir", "data.boxes"))]
    )
    assert [config["data"]["root"], config["data"]["cache"], config["run_dir"], config["data"]["boxes"]] == [path] * 4
    assert compose("phantom", [f"labels={path}", f"output={path}"])["labels"] == path
    assert compose("submission", [f"predictions={path}", f"images={path}"])["images"] == path


def test_a_list_of_checkpoints_holds_any_paths() -> None:
    given = "[/runs (1)/a b.ckpt, it's.ckpt,'with, comma.ckpt',plain.ckpt]"
    config = compose("predict", [f"coarse={given}", "fine=a", "input=x", "output=y"])
    assert config["coarse"] == ["/runs (1)/a b.ckpt", "it's.ckpt", "with, comma.ckpt", "plain.ckpt"]
    assert compose("predict", ["coarse=[]", "fine=a", "input=x", "output=y"])["coarse"] == []


def test_what_hydra_reads_is_left_to_it_but_for_files_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHERE", "/some (where)")
    config = compose("phantom", ["output=a (1) ${oc.env:WHERE}/x", "labels='quoted (1)'"])
    assert (config["output"], config["labels"]) == ("a (1) /some (where)/x", "quoted (1)")
    (tmp_path / "${x}").touch()
    (tmp_path / "'a'").touch()
    (tmp_path / "[b]").touch()
    config = compose("predict", ["input=${x}", "output='a'", "coarse=[b]", "fine=a"])
    assert (config["input"], config["output"], config["coarse"]) == ("${x}", "'a'", "[b]")


def test_the_home_folder_is_found_in_every_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = compose("phantom", ["output=~/out (1)", "labels=a~b/~"])
    assert (config["output"], config["labels"]) == ("/home/me/out (1)", "a~b/~")


def test_a_path_may_hold_a_comma() -> None:
    assert with_paths("train", ["data.root=/a,/b"]) == ["data.root='/a,/b'"]


def test_a_command_works_at_an_odd_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'Müller (1), a=b ^#&[]{}:$\' "x" caf\udce9'
    monkeypatch.setattr(
        sys, "argv", ["phantom", f"output={folder}", "cases=1", "matrix=32", "spacing_z=[9,9]", "spacing_xy=[8,8]"]
    )
    phantom()
    assert (folder / "case_00000" / "imaging.nii.gz").is_file()


def test_the_schema_says_which_keys_take_a_path() -> None:
    keys = {name: {key for schema in schemas_of(name) for key in path_keys(schema)} for name in ("train", "predict", "pipeline")}
    assert {"data.root", "data.cache", "data.boxes", "run_dir", "resume"} <= keys["train"]
    assert {"coarse", "fine", "input", "output", "split_file"} == keys["predict"]
    assert {"output", "input", "truth", "data.root"} <= keys["pipeline"], "what it passes on has paths too"
    assert "seed" not in keys["train"]
    with pytest.raises(KitsError, match="no such key"):
        compose("phantom", ["outputs=/a"])
