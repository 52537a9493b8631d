"""Real sweeps of tiny trainings: failed, stopped, resumed and pruned trials, jobs of submitit, and a SLURM of three scripts."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.data.preparation import prepare
from kits.sweep import sweep
from kits.sweeps.trial import read_record
from tests.e2e.test_whole_way import COARSE, SMALL

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 240


@pytest.fixture(scope="module")
def common(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What every trial has: one epoch of a tiny coarse network on a cache that is there already."""
    cache = tmp_path_factory.mktemp("sweeps") / "cache"
    overrides = [*COARSE, *SMALL, f"data.root={kits_tree}", f"data.cache={cache}", "sampling.patches_per_epoch=4"]
    prepare(compose("train", overrides)["data"])
    return [*overrides, "trainer.max_epochs=1"]


def table(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of sweep.csv by trial."""
    return {row["trial"]: row for row in csv.DictReader((folder / "sweep.csv").read_text(encoding="utf-8").splitlines())}


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def started(arguments: list[str]) -> subprocess.Popen:
    """The command itself, as a user starts it."""
    return subprocess.Popen([sys.executable, "-m", "kits.train", "-m", *arguments], stderr=subprocess.PIPE, text=True)


def test_a_grid_records_a_failure_goes_on_and_skips_what_is_done(common: list[str], tmp_path: Path) -> None:
    arguments = [*common, "loss.bias=2,0.5", f"sweep.dir={tmp_path}", "sweep.jobs=2"]
    sweep(arguments)
    rows = table(tmp_path)
    good, bad = rows["loss.bias-2"], rows["loss.bias-0.5"]
    assert (good["status"], good["loss.bias"], good["steps"], good["epoch"]) == ("done", "2", "4", "0")
    assert float(good["val/score"]) == float(good["score"]) > 0
    assert float(good["seconds"]) > float(good["seconds_per_step"]) > 0
    assert float(good["peak_memory_mb"]) > 100
    assert bad["status"] == "failed"
    assert "loss.bias" in bad["error"]
    assert (tmp_path / "loss.bias-2" / "best.ckpt").is_file()
    assert (tmp_path / "sweep.png").is_file()

    def written(name: str) -> int:
        return (tmp_path / name / "trial.json").stat().st_mtime_ns

    before = written("loss.bias-2"), written("loss.bias-0.5")
    sweep(arguments)
    assert written("loss.bias-2") == before[0]
    assert written("loss.bias-0.5") > before[1], "what failed is tried again"


def test_a_sweep_that_is_ended_stops_and_records_its_trial_and_goes_on_with_it(common: list[str], tmp_path: Path) -> None:
    arguments = [
        *common,
        "trainer.max_epochs=30",
        "callbacks.early_stopping.patience=1",
        "seed=choice(0)",
        f"sweep.dir={tmp_path}",
    ]
    process = started(arguments)
    wait_for((tmp_path / "seed-0" / "metrics.csv").exists)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert said.endswith("kits.train: interrupted\n")
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"seed-0": "interrupted"}
    sweep(arguments)
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"seed-0": "done"}


def test_a_killed_sweep_is_not_started_again_beside_the_trial_that_it_left(common: list[str], tmp_path: Path) -> None:
    arguments = [
        *common,
        "trainer.max_epochs=300",
        "callbacks.early_stopping.patience=300",
        "seed=choice(0)",
        f"sweep.dir={tmp_path}",
    ]
    process = started(arguments)
    wait_for((tmp_path / "seed-0" / "metrics.csv").exists)
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    orphans = [int(pid) for path in children for pid in path.read_text(encoding="utf-8").split()]
    process.kill()
    process.communicate()
    try:
        with pytest.raises(KitsError, match=r"sweep\.dir=.*: another sweep, or a trial that one left, is at work there"):
            sweep(arguments)
    finally:
        for pid in orphans:
            os.killpg(pid, signal.SIGKILL)
    assert orphans


def test_an_adaptive_sweep_prunes_what_falls_behind_and_stops_its_training(common: list[str], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = ["sweep=optuna", "optimizer.lr=tag(log,interval(1e-7,1e-1))", f"sweep.dir={tmp_path}", "sweep.poll_seconds=0.1"]
    # This seed draws 4e-3, which learns, and then 2e-6, which does not.
    search = ["sweep.trials=2", "sweep.seed=9", "sweep.pruning.startup_trials=1", "sweep.pruning.warmup_epochs=1"]
    longer = ["sampling.patches_per_epoch=12", "trainer.max_epochs=15", "callbacks.early_stopping.patience=15"]
    sweep([*common, *longer, *space, *search])
    learning, idle = table(tmp_path).values()
    assert (learning["status"], idle["status"]) == ("done", "pruned")
    assert float(learning["score"]) > float(idle["score"])
    assert int(learning["steps"]) == 12 * 15 > int(idle["steps"])
    assert float(learning["optimizer.lr"]) == pytest.approx(3.57e-3, rel=0.01)


def test_jobs_of_submitit_on_this_machine(common: list[str], tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    sweep([*common, "sweep=local", "loss.bias=2,0.5", f"sweep.dir={tmp_path}"])
    assert {name: row["status"] for name, row in table(tmp_path).items()} == {"loss.bias-2": "done", "loss.bias-0.5": "failed"}


# A job runs at once, in the background; sacct only knows that there is nothing left to know.
SBATCH = """#!/bin/bash
cp "$1" "$SLURM_FAKE/$$.sh"
export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
bash "$1" </dev/null >/dev/null 2>&1 &
echo "Submitted batch job $$"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in *=*|--unbuffered) shift;; *) shift 2;; esac; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
"""


def test_a_slurm_sweep_submits_a_job_a_trial_with_its_gpu_and_partition(
    common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    tools, folder = tmp_path / "bin", tmp_path / "sweep"
    tools.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", "#!/bin/bash\n")):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_FAKE", str(tools))
    options = ["sweep=slurm", "sweep.parameters.partition=gpu", "sweep.parameters.mem_gb=32", "sweep.poll_seconds=0.5"]
    sweep([*common, *options, "seed=0,1", f"sweep.dir={folder}"])
    scripts = [path.read_text(encoding="utf-8") for path in tools.glob("*.sh")]
    assert len(scripts) == 2
    for script in scripts:
        for flag in (
            "partition=gpu",
            "gpus-per-node=1",
            "ntasks-per-node=1",
            "nodes=1",
            "mem=32GB",
            "time=1440",
            "cpus-per-task=8",
        ):
            assert f"#SBATCH --{flag}\n" in script
        assert "#SBATCH --job-name=sweep\n" in script
    assert {name: row["status"] for name, row in table(folder).items()} == {"seed-0": "done", "seed-1": "done"}
    record = read_record(folder / "seed-1")
    assert record is not None
    assert record["parameters"] == {"seed": "1"}
