"""A sweep of W&B's: the README's file gives a command line that we take, and the run keeps the agent's id."""

import json
import re
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from kits.config.composing import checked, compose
from kits.train import train
from tests.conftest import prepare
from tests.unit.test_trainer_options import TINY

README = Path(__file__).parents[2] / "README.md"


def test_the_agents_command_trains_and_its_id_is_the_runs(
    kits_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = re.findall(r"```yaml\n(method: .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    sweep = yaml.safe_load(text)
    assert set(sweep["parameters"]) == {"optimizer.lr", "loss.bias"}
    # As the agent does: a value for each parameter, its macros filled in, and the run's id in the environment.
    found = create_sweep_command_args({"args": {"optimizer.lr": {"value": 0.00123}, "loss.bias": {"value": 2}}})
    command = [one for part in create_sweep_command(sweep["command"]) for one in found.get(part[2:-1], [part])]
    assert command[:3] == ["python", "-m", "kits.train"]
    monkeypatch.setenv("WANDB_RUN_ID", "ab12cd34")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    own = [*TINY[1:], f"data.root={kits_tree}", "data.cache=cache", "trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    prepare(compose("train", ["stage=coarse", *own])["data"])
    options = checked("train", [*command[3:], *own])
    assert (options.run_dir, options.optimizer.lr, options.loss.bias) == ("runs/agent/ab12cd34", 0.00123, 2)
    train(options)
    run = tmp_path / "runs" / "agent" / "ab12cd34"
    assert json.loads((run / "manifest.json").read_text(encoding="utf-8"))["wandb_id"] == "ab12cd34"
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert folder.name.endswith("-ab12cd34")
