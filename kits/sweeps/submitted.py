"""Trials as jobs of submitit: on this machine, or in the queue of a SLURM cluster.

Hydra's launcher for submitit waits for all of its jobs and fails with the first that failed, so the jobs are handed over here,
one by one, under the same names of parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kits.config import one_line
from kits.core.errors import KitsError
from kits.sweeps.pool import Job
from kits.sweeps.trial import Trial, run_trial

FOLDER = ".submitit"  # what submitit writes: job script, pickled call, its own logs
# Parameters that every executor of submitit knows; all others are named after theirs.
COMMON = ("timeout_min", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "name", "stderr_to_stdout")


class Submitted:
    """The launcher for `local` and `slurm`.

    Args:
        cluster: either of these two.
        folder: the sweep's; all machines must see it under this name.
        parameters: the job's, `sweep.parameters`.
        gpus: CUDA_VISIBLE_DEVICES of each slot on this machine; None leaves it to the cluster.

    Raises:
        KitsError: submitit is not installed, there is no such cluster here, or it does not know a parameter.
    """

    def __init__(self, cluster: str, folder: Path, parameters: dict[str, Any], gpus: list[str | None]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise KitsError(f"sweep={cluster}: needs submitit; install it with pip install 'kits[sweep]'") from error
        self.gpus = gpus
        named = {key if key in COMMON else f"{cluster}_{key}": value for key, value in parameters.items()}
        try:
            self.executor = submitit.AutoExecutor(folder.resolve() / FOLDER / "%j", cluster=cluster)
            self.executor.update_parameters(**{key: value for key, value in named.items() if value is not None})
        except RuntimeError as error:
            raise KitsError(f"sweep={cluster}: no such cluster here ({one_line(error)}); start it on a login node") from error
        except (NameError, ValueError, AssertionError, TypeError) as error:
            raise KitsError(f"sweep.parameters: {one_line(error)}") from error

    def submit(self, trial: Trial, slot: int) -> Job:
        """Hand the trial over."""
        self.executor.update_parameters(name=trial.run_dir.parent.name)
        return First(self.executor.submit(run_trial, trial, self.gpus[slot]))


class First:
    """A job of submitit as one with one result: that of its first task, which writes the record."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return bool(self.job.done())

    def result(self) -> dict[str, Any]:
        """The record; raises what ended the job where that was not the training."""
        record: dict[str, Any] = self.job.results()[0]
        return record

    def cancel(self) -> None:
        """Take it out of the queue, or end it."""
        self.job.cancel()
