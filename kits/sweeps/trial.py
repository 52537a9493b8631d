"""One trial: a training in a process of its own, and the record of how it ended."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.config import one_line
from kits.core.plain_files import read_object
from kits.core.sharding import shard_from_environment
from kits.io import write_json, write_text
from kits.runs.folder import LAST, read_manifest
from kits.sweeps.scores import best_row, read_metrics, steps

RECORD, LOG, STOP = "trial.json", "train.log", ".stop"
# What a trial can have come to. Only an interrupted one, a failed one and one that was killed (`running`) are run again.
DONE, FAILED, PRUNED, INTERRUPTED, RUNNING = "done", "failed", "pruned", "interrupted", "running"
# Of kits.train: go on with the run in run_dir where there is one.
RESUME = "resume=auto"
# A shell's exit codes of a training that a cluster or a user has asked to end, and that has saved.
ASKED_TO_END = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Trial:
    """A training to run.

    Attributes:
        name: of its run folder, and of its row in the table.
        parameters: what this trial has of its own: key and value as on the command line.
        overrides: the whole command line of kits.train, `run_dir` included.
        run_dir: its run folder.
        score: the column of metrics.csv that counts.
        grace_seconds: between asking it to stop and killing it.
    """

    name: str
    parameters: dict[str, str]
    overrides: list[str]
    run_dir: Path
    score: str
    grace_seconds: float

    def stop(self, status: str) -> None:
        """Ask the trial, wherever it runs, to end with this status: PRUNED or INTERRUPTED."""
        write_text(self.run_dir / STOP, status)


def read_record(run_dir: Path) -> dict[str, Any] | None:
    """The record of the trial in a run folder; None where there is none."""
    return read_object(run_dir / RECORD)


def run_trial(trial: Trial, gpus: str | None = None, keep_open: tuple[int, ...] = ()) -> dict[str, Any]:
    """Run a trial that has begun (see `begin`) to its end, in whatever way it ends, and write the record.

    Args:
        gpus: for CUDA_VISIBLE_DEVICES; None leaves it as it is.
        keep_open: file descriptors that the training inherits.
    """
    rank, _ = shard_from_environment()  # a trial may be several tasks of a SLURM job, and its first one writes
    began = time.monotonic()
    environment = os.environ | ({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus})
    log = trial.run_dir / (LOG if rank == 0 else f"train{rank}.log")
    log.unlink(missing_ok=True)  # of an earlier attempt, or a link to another file
    with log.open("xb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kits.train", *trial.overrides],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=keep_open,
            start_new_session=True,  # its ranks and loaders end with it, and Ctrl-C reaches the sweep alone
        )
    usage, stopped = wait(process, trial)
    record = {**known(trial), **(stopped or outcome(trial, process.returncode, log))}
    record |= {"seconds": round(time.monotonic() - began, 1), "peak_memory_mb": round(usage.ru_maxrss / 1024)}
    record |= results(trial, record["seconds"])
    if rank == 0:
        (trial.run_dir / STOP).unlink(missing_ok=True)
        write_json(trial.run_dir / RECORD, record)
    return record


def begin(trial: Trial) -> None:
    """Note that the trial is under way, and clear away what an attempt has left that it cannot go on with."""
    finished = (read_manifest(trial.run_dir) or {}).get("finished")
    goes_on = RESUME in trial.overrides and (trial.run_dir / LAST).exists() and not finished
    if read_record(trial.run_dir) is not None and not goes_on:  # the folder is a sweep's own
        shutil.rmtree(trial.run_dir)
    (trial.run_dir / STOP).unlink(missing_ok=True)
    write_json(trial.run_dir / RECORD, {**known(trial), "status": RUNNING})


def known(trial: Trial) -> dict[str, Any]:
    """What a record says from the start."""
    return {"trial": trial.name, "parameters": trial.parameters, "command": ["kits.train", *trial.overrides]}


def wait(process: subprocess.Popen[bytes], trial: Trial) -> tuple[Any, dict[str, str]]:
    """Wait for the training's end, or bring it about where the trial is to stop.

    Returns:
        The system's account of the process, and the record's status where it was stopped (else nothing).
    """
    stopped: dict[str, str] = {}
    stop, deadline = trial.run_dir / STOP, math.inf
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return usage, stopped
            if not stopped and stop.exists():
                stopped = {"status": stop.read_text(encoding="utf-8"), "error": ""}
                deadline = time.monotonic() + trial.grace_seconds
                signal_group(process, signal.SIGTERM)
            if time.monotonic() > deadline:
                signal_group(process, signal.SIGKILL)
            time.sleep(LOOK_SECONDS)
    finally:
        # Whatever it started goes with it, and it goes itself where this function is left by an exception.
        signal_group(process, signal.SIGKILL)


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the training and every process that it has started and left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def outcome(trial: Trial, code: int, log: Path) -> dict[str, Any]:
    """Status, and the error in one line (empty where there is none)."""
    if code == 0:
        if best_row(read_metrics(trial.run_dir), trial.score):
            return {"status": DONE, "error": ""}
        return {"status": FAILED, "error": f"no {trial.score} in its metrics.csv"}
    if code in ASKED_TO_END:
        return {"status": INTERRUPTED, "error": ""}
    return {"status": FAILED, "error": last_error(log, code)}


def last_error(log: Path, code: int) -> str:
    """The line of a training's output that says why it ended: the command's own, or the exception's."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", most likely for want of memory" if name == "SIGKILL" else "")
    # Progress bars go back to the start of their line.
    lines = [line.strip() for line in re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace")) if line.strip()]
    own = [line.removeprefix("kits.train: ") for line in lines if line.startswith("kits.train: ")]
    return one_line((own or lines or [f"exit code {code}"])[-1])


def results(trial: Trial, seconds: float) -> dict[str, Any]:
    """Scores of the best epoch, and the pace.

    `seconds_per_step` is the whole training, validation and saving included, over its steps: of `seconds` in manifest.json where
    the training has come to its end, of the process (start included) where it has not.
    """
    rows = read_metrics(trial.run_dir)
    best = best_row(rows, trial.score)
    manifest = read_manifest(trial.run_dir) or {}
    done = int(manifest.get("steps", steps(rows)))
    trained = float(manifest.get("seconds", seconds))
    return {
        "score": best.get(trial.score),
        "epoch": int(best["epoch"]) if "epoch" in best else None,
        "steps": done,
        "seconds_per_step": round(trained / done, 4) if done else None,
        "scores": {name: value for name, value in best.items() if name.startswith("val/")},
    }
