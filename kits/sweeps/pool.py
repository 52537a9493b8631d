"""So many trials at once, wherever they run, until the search has no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from kits.config import one_line
from kits.io import write_json
from kits.sweeps.trial import FAILED, INTERRUPTED, PRUNED, RECORD, Trial, begin, known, run_trial

LAST_WORDS_SECONDS = 5.0  # for the record of a trial that was killed


class Search(Protocol):
    """What decides on the trials."""

    total: int

    def next(self) -> Trial | None: ...
    def is_hopeless(self, trial: Trial) -> bool: ...
    def tell(self, trial: Trial, record: dict[str, Any]) -> None: ...


class Job(Protocol):
    """A trial that was handed over; futures of this process and jobs of submitit are such."""

    def done(self) -> bool: ...
    def result(self) -> dict[str, Any]: ...
    def cancel(self) -> Any: ...


class Launcher(Protocol):
    """What runs a trial: in its slot of so many at once."""

    def submit(self, trial: Trial, slot: int) -> Job: ...


class Processes:
    """Trials as processes that this one waits for, a thread each.

    Args:
        gpus: CUDA_VISIBLE_DEVICES of each slot; None leaves it as it is.
        keep_open: file descriptors that every training inherits.
    """

    def __init__(self, gpus: list[str | None], keep_open: tuple[int, ...]) -> None:
        self.gpus, self.keep_open = gpus, keep_open
        self.threads = ThreadPoolExecutor(len(gpus))

    def submit(self, trial: Trial, slot: int) -> Job:
        """Start it."""
        return self.threads.submit(run_trial, trial, self.gpus[slot], self.keep_open)


@dataclass(frozen=True)
class Running:
    """A trial under way."""

    trial: Trial
    job: Job


def run_all(search: Search, launcher: Launcher, jobs: int, poll_seconds: float, ended: Callable[[dict[str, Any]], None]) -> None:
    """Run the trials of a search, `jobs` at once; one that fails is a record like another.

    Args:
        poll_seconds: between two looks at what runs.
        ended: called with the record of each trial that has ended.
    """
    slots: list[Running | None] = [None] * jobs
    try:
        while True:
            for slot, running in enumerate(slots):
                if running is None and (trial := search.next()) is not None:
                    begin(trial)
                    slots[slot] = Running(trial, launcher.submit(trial, slot))
            if not any(slots):
                return
            time.sleep(poll_seconds)
            for slot, running in enumerate(slots):
                if running is None:
                    continue
                if running.job.done():
                    slots[slot] = None
                    record = record_of(running, FAILED)
                    search.tell(running.trial, record)
                    ended(record)
                elif search.is_hopeless(running.trial):
                    running.trial.stop(PRUNED)
    except BaseException:
        stop_all([running for running in slots if running is not None], poll_seconds, ended)
        raise


def record_of(running: Running, otherwise: str) -> dict[str, Any]:
    """The record of a trial whose job has ended; one that never came to write it gets the status `otherwise`."""
    try:
        return running.job.result()
    except Exception as error:  # of a queue that killed the job, or of a folder that cannot be written
        record = {**known(running.trial), "status": otherwise, "error": one_line(error)}
        with suppress(Exception):
            write_json(running.trial.run_dir / RECORD, record)
        return record


def stop_all(unfinished: list[Running], poll_seconds: float, ended: Callable[[dict[str, Any]], None]) -> None:
    """End what still runs and record it, so that the sweep can go on later."""
    for running in unfinished:
        running.trial.stop(INTERRUPTED)
    for running in unfinished:
        deadline = time.monotonic() + running.trial.grace_seconds + LAST_WORDS_SECONDS
        while not running.job.done() and time.monotonic() < deadline:
            time.sleep(poll_seconds)
        if running.job.done():
            ended(record_of(running, INTERRUPTED))
        else:  # it waits in a queue, or its machine does not answer
            running.job.cancel()
