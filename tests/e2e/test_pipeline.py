"""Real tiny runs of kits.pipeline and kits.crossval: what holds is skipped, what changed runs again, what was killed goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_whole_way import COARSE, FINE, SMALL

pytestmark = pytest.mark.slow

# The recipes of a study are named on the command line; what makes them tiny stands after it.
SHARED = [override for override in SMALL if override not in ("split=paper", "data.workers=1")]
TINY = ["sampling.patches_per_epoch=4", "trainer.max_epochs=1"]


def overrides(stage: list[str], prefix: str) -> list[str]:
    kept = [override for override in stage if not override.startswith(("stage=", "sampling.patches_per_epoch", "trainer.max"))]
    return [f"{prefix}{override}" for override in kept]


def run(command: str, *arguments: str, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    call = [sys.executable, "-m", f"kits.{command}", *arguments]
    done = subprocess.run(call, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def verdicts(said: str) -> dict[str, str]:
    """What the runner said of each step."""
    pairs = (line.partition(": ") for line in said.splitlines())
    return {name: why for name, _, why in pairs if why.startswith(("runs", "up to date", "goes on"))}


def two_stages(tree: Path, output: Path) -> list[str]:
    common = ["study=painted", f"data.root={tree}", f"output={output}", "split=paper", *SHARED, *TINY, "+predict.device=cpu"]
    network = ["+coarse.model.norm=group", "+coarse.trainer.precision=32-true", "+prepare.data.workers=1"]
    return [*common, *network, *overrides(COARSE, "+coarse."), *overrides(FINE, "+fine.")]


def test_the_second_run_skips_all_and_a_changed_step_runs_again_with_those_after_it(kits_tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = two_stages(kits_tree, output)
    first = verdicts(run("pipeline", *arguments))
    assert first == dict.fromkeys(("prepare", "coarse", "fine", "predict", "evaluate", "report"), "runs")
    split = json.loads((output / "cache" / "splits.json").read_text(encoding="utf-8"))["parts"]
    assert [path.name for path in (output / "predictions").glob("*.nii.gz")] == [f"{split['validation'][0]}.nii.gz"]
    assert json.loads((output / "evaluation" / "summary.json").read_text(encoding="utf-8"))["cases"] == 1
    assert (output / "report" / "index.html").is_file()

    again = run("pipeline", *arguments)
    assert set(verdicts(again).values()) == {"up to date"}
    assert "$ python -m" not in again
    assert "nothing had to run" in again
    assert split["validation"][0] in again, "the table is shown all the same"

    changed = verdicts(run("pipeline", *arguments, "++fine.optimizer.lr=0.004"))
    assert changed["prepare"] == changed["coarse"] == "up to date"
    assert changed["fine"] == "runs again, because optimizer.lr changed"
    assert changed["predict"] == "runs again, because fine/best.ckpt changed"

    (output / "evaluation" / "table.txt").unlink()
    lost = verdicts(run("pipeline", *arguments, "++fine.optimizer.lr=0.004"))
    assert {step: why for step, why in lost.items() if why != "up to date"} == {
        "evaluate": "runs again, because evaluation/table.txt is gone"
    }


def test_a_killed_training_goes_on(kits_tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = [*two_stages(kits_tree, output), "+coarse.trainer.max_epochs=400", "callbacks.early_stopping.patience=400"]
    root, environment = Path(__file__).parents[2], {**os.environ, "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "kits.pipeline", *arguments]
    process = subprocess.Popen(call, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not (output / "coarse" / "last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "SIGTERM during kits.train; the same command goes on from there" in said
    before = json.loads((output / "coarse" / "manifest.json").read_text(encoding="utf-8"))
    assert not before["finished"]

    # The rest of the 400 epochs would take minutes: it is enough that the run goes on where it was.
    process = subprocess.Popen(call, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while time.monotonic() < deadline + 300 and process.poll() is None:
        manifest = json.loads((output / "coarse" / "manifest.json").read_text(encoding="utf-8"))
        if "resumed" in manifest:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert verdicts(said) == {"prepare": "up to date", "coarse": "goes on, because it was interrupted"}
    assert f"$ python -m kits.train resume={output / 'coarse'}" in said
    after = json.loads((output / "coarse" / "manifest.json").read_text(encoding="utf-8"))
    assert after["resumed"][0]["epoch"] >= 1 or after["resumed"][0]["batches"] >= 1
    assert after["steps"] >= before["steps"]


def test_every_case_is_predicted_out_of_fold_and_the_folds_make_an_ensemble(kits_tree: Path, tmp_path: Path) -> None:
    common = [f"data.root={kits_tree}", f"output={tmp_path}", "split.k=2", *SHARED, *TINY, "+predict.device=cpu"]
    coarse = ["stage=coarse", *common, *overrides(COARSE, "")]
    said = run("crossval", *coarse)
    assert list(verdicts(said)) == ["prepare", "coarse0", "coarse1", "boxes"]
    assert "case_00003" in (tmp_path / "boxes" / "table.txt").read_text(encoding="utf-8")
    assert len(json.loads((tmp_path / "boxes" / "boxes.json").read_text(encoding="utf-8"))["cases"]) == 4
    assert set(verdicts(run("crossval", *coarse)).values()) == {"up to date"}

    said = run("crossval", "stage=fine", "data.roi=oof", *common, *overrides(FINE, ""))
    assert list(verdicts(said)) == ["prepare", "fine0", "fine1", "predict0", "predict1", "evaluate"]
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    assert summary["cases"] == 4
    assert "missing" not in summary
    assert {"mean", "low", "high"} <= set(summary["columns"]["kidney"])
    for fold in (0, 1):
        manifest = json.loads((tmp_path / f"fine{fold}" / "manifest.json").read_text(encoding="utf-8"))
        assert (
            manifest["split"]["validation"]
            == json.loads((tmp_path / "cache" / "splits.json").read_text(encoding="utf-8"))["parts"][f"fold{fold}"]
        )

    ensemble = [word for word in said.splitlines()[-1].replace("'", "").split() if word.startswith(("coarse=", "fine="))]
    scan = kits_tree / "case_00000" / "imaging.nii.gz"
    run("predict", *ensemble, f"input={scan}", f"output={tmp_path / 'together'}", "device=cpu")
    assert list((tmp_path / "together").glob("*.nii.gz"))
