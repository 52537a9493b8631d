"""What a newcomer asks a command: --help, and the tab key; and how long it takes to answer."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kits.bench.startup import measure
from kits.config import conf_dir
from kits.config.command import ask
from kits.config.schema.benches import StartupBench
from kits.core.errors import KitsError
from kits.train import main


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What Hydra answers to a line as far as it is typed, in which the shell's script has left out `-m`."""
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr("sys.argv", ["kits.train", "-sc", "query=bash"])
    main()
    return capsys.readouterr().out.split()


def test_help_names_usage_groups_choices_keys_and_examples() -> None:
    text = str(ask("train", "Train one stage.", ["--help"]))
    assert text.startswith("usage: python -m kits.train stage=coarse|fine")
    assert "Train one stage." in text
    for line in (
        "  optimizer     adam, adamw, own, sgd (the stage chooses)",
        "  scheduler     constant, cosine, own, plateau, poly (the stage chooses)",
        "  logger        csv*, tensorboard, wandb",
        "  debug         fast, none*, overfit",
        "  overwrite=false               true: replace the run that run_dir holds",
    ):
        assert line in text.splitlines()
    assert "python -m kits.train stage=coarse data.cache=cache" in text
    for group in (path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in ("measures", "hydra")):
        assert f"  {group} " in text, "a group that help does not name"


@pytest.mark.parametrize("name", sorted(path.stem for path in conf_dir().glob("*.yaml") if path.stem != "base"))
def test_every_command_has_help_of_readable_width(name: str) -> None:
    text = str(ask(name, "What it does.", ["-h"]))
    called = {"demo": "bench demo"}.get(name, name.replace("bench_", "bench "))
    assert f"usage: python -m kits.{called}" in text
    assert max(map(len, text.splitlines())) <= 150
    assert "???" not in text


def test_needed_keys_are_marked_and_nested_ones_are_named() -> None:
    text = str(ask("predict", "Write label maps.", ["--help"]))
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert lines["input="].split()[1] == "(needed)"
    assert lines["split_file=null"].index("cache/") == lines["input="].index("(")


def test_help_of_a_group_explains_its_choices() -> None:
    text = str(ask("train", None, ["--help", "scheduler"]))
    assert "scheduler=poly\n    (1 - progress) ** power" in text
    with pytest.raises(KitsError, match=r"--help lss: no such group; did you mean loss\?; take one of augmentation"):
        ask("train", None, ["--help", "lss"])


def test_help_names_our_plugins_of_hydra() -> None:
    assert "hydra/launcher=processes\n    A process and a run folder for each trial" in str(
        ask("train", None, ["--help", "hydra/launcher"])
    )
    assert "hydra/sweeper=tpe\n    Tree-structured Parzen estimators" in str(ask("train", None, ["--help", "hydra/sweeper"]))


def test_hydras_own_flags_are_left_to_it() -> None:
    assert ask("train", None, ["stage=coarse", "--cfg", "job"]) is None
    assert ask("train", None, ["-m", "stage=coarse,fine"]) is None


def test_tab_offers_groups_choices_and_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def after(line: str) -> list[str]:
        return completed(line, monkeypatch, capsys)

    assert {"stage=", "loss=", "optimizer="} <= set(after("python kits.train "))
    assert after("python kits.train stage=") == ["stage=coarse", "stage=fine"]
    assert "trainer.max_epochs=" in after("python kits.train stage=fine trainer.max")
    assert after("python kits.train stage=fine model.fus") == ["model.fusion="]
    assert {"experiment=demo/coarse", "experiment=paper/fine"} <= set(after("python kits.train experiment=demo"))
    precisions = {"auto", "32-true", "bf16-mixed", "16-mixed"}
    assert {f"trainer.precision={name}" for name in precisions} == set(after("python kits.train stage=fine trainer.precision="))
    assert {"model.gate=true", "model.gate=false"} == set(after("python kits.train stage=fine model.gate="))
    assert {"model.norm=none", "model.norm=group"} == set(after("python kits.train stage=coarse model.norm=g"))


def test_bash_completes_with_the_installed_script() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = str(ask("train", None, ["--shell-completion", "install=bash"]))
    line = "python -m kits.train stage=f"
    typed = f'COMP_LINE="{line}"; COMP_POINT={len(line)}; _kits_complete; echo "${{COMPREPLY[*]}}"'
    stand_in = f'python() {{ "{sys.executable}" "$@"; }}'
    done = subprocess.run(
        [bash, "-c", f"{script}\n{stand_in}\n{typed}"], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "fine"


def test_the_bench_times_answers_and_refuses_a_call_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    found = measure(StartupBench(rounds=1, calls={"help": "train --help"}, bars={}))
    assert 0 < found["help"] < 60
    assert "bare starts" in capsys.readouterr().out
    with pytest.raises(KitsError, match=r"calls\.none: ended with exit code 2"):
        measure(StartupBench(rounds=1, calls={"none": "bench nothing"}, bars={}))
