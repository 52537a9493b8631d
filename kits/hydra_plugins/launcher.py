"""A launcher for Hydra that starts a process for each trial of `python -m kits.train -m ...`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from kits.config import one_line
from kits.config.quoting import quoted
from kits.config.schema import check, parse, resolved
from kits.config.schema.base import check_output
from kits.config.schema.workflow import Processes
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.core.sharding import launched
from kits.hydra_plugins.gpus import deal
from kits.hydra_plugins.trial_records import DONE, FAILED, INTERRUPTED, PRUNED, RUNNING, Trial, read_trials, results, update
from kits.runs.folder import LAST, LOCK, METRICS, read_manifest

LOG = "train.log"
# A shell's exit codes of a training that a cluster or a user has asked to end, and that has saved.
ASKED_TO_END = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
LONGEST_NAME = 150  # letters; file systems take 255 bytes


class TrialError(KitsError):
    """A trial has not come to its end: with the status `failed`, `pruned` or `interrupted`."""

    def __init__(self, trial: Trial, status: str, error: str) -> None:
        super().__init__(f"{trial.run_dir}: {error or status}")
        self.status = status


class ProcessLauncher(Launcher):
    """A launcher that runs each trial in a process of its own.

    There it can start the ranks of its DDP, and one that fails leaves the others alone. In one process, as with Hydra's own
    launcher, every rank of the first trial would run the whole sweep. A sweeper may launch from several threads, and stop a
    running trial by its number and run folder: `prune`.

    Args: see conf/hydra/launcher/processes.yaml.
    """

    def __init__(self, **options: Any) -> None:
        self.options: Processes = parse(Processes, options, "hydra.launcher")
        self.score = self.options.score  # which a sweeper reads too
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.prune: Callable[[int, Path], bool] = lambda number, run_dir: False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Deal out the GPUs.

        Raises:
            KitsError: there are too few, or a launcher of ranks has started this process.
        """
        if launched().count > 1:
            raise KitsError(
                "--multirun: started as one of several ranks, and each would run the whole sweep; start it once, without "
                "torchrun or srun: every trial starts its own ranks (trainer.devices)"
            )
        self.loader, self.config, self.folder = hydra_context.config_loader, config, Path(config.hydra.sweep.dir)
        check_output("hydra.sweep.dir", str(self.folder))
        slots = deal(self.options.n_jobs, self.options.gpus, config.trainer.accelerator, config.trainer.devices)
        self.n_jobs, self.free = len(slots), SimpleQueue[str | None]()
        for slot in slots:
            self.free.put(slot)
        parsed = OverridesParser.create(self.loader).parse_overrides(list(config.hydra.overrides.task))
        self.swept = {override.get_key_element() for override in parsed if override.is_sweep_override()}
        self.swept |= set(config.hydra.sweeper.get("params") or ())

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run trials to their end, in whatever way each of them ends, `n_jobs` at once.

        Raises:
            KitsError: one of them cannot be; nothing has been started then.
            KeyboardInterrupt: this process was asked to end; what ran is stopped, saved and recorded.
        """
        composed = [self.compose(number, list(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        trials = [trial for trial, _ in composed]
        twice = [run_dir for run_dir, count in Counter(trial.run_dir for trial in trials).items() if count > 1]
        if twice:
            what = "is the folder of several trials; give each value once, and leave hydra.sweep.subdir out"
            raise KitsError(f"{twice[0]}: {what}")
        for trial, other in product(trials, read_trials(self.folder)):
            same = other.parameters == trial.parameters or other.run_dir != trial.run_dir
            if not same or sorted(other.fixed) != sorted(trial.fixed):
                difference = " ".join(sorted({*other.overrides} ^ {*trial.overrides}))
                raise KitsError(
                    f"hydra.sweep.dir={self.folder}: holds another sweep's trials ({difference}); give another folder"
                )
        with sigterm_as_interrupt(), ThreadPoolExecutor(self.n_jobs) as pool:
            try:
                return list(pool.map(self.run, trials, [config for _, config in composed]))
            except BaseException:
                self.stopping.set()
                raise

    def compose(self, number: int, overrides: list[str]) -> tuple[Trial, DictConfig]:
        """Compose a trial's configuration and hold it against the schema."""
        own = [override for override in overrides if override.partition("=")[0] in self.swept]
        parameters = dict(override.lstrip("+").split("=", 1) for override in own)
        for override in overrides:
            if override.startswith(("run_dir=", "resume=", "overwrite=")):
                what = "each trial has its own folder and goes on by itself; give hydra.sweep.dir=DIR instead"
                raise KitsError(f"{override}: {what}")
        with self.lock:  # Hydra composes in one thread at a time
            config = self.loader.load_sweep_config(self.config, overrides)
            with open_dict(config):
                config.hydra.job.num, config.hydra.job.id = number, name_of(parameters) or str(number)
                run_dir = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
                hydra = config.pop("hydra")
            options = check(hydra.job.config_name, resolved(config), hydra.runtime.choices)
            if not options.trainer.validates:
                raise KitsError("trainer.limit_val_batches=0: trials are compared by their validation scores; leave it out")
        fixed = [override for override in overrides if override not in own]
        return Trial(number=number, run_dir=run_dir, parameters=parameters, fixed=fixed, overrides=overrides), config

    def run(self, trial: Trial, config: DictConfig) -> JobReturn:
        """Train in a process, unless an earlier start has come to the end, and record how it ended."""
        status, error = DONE, ""
        if not (read_manifest(trial.run_dir) or {}).get("finished"):
            gpus = self.free.get()
            try:
                if self.stopping.is_set():
                    raise KeyboardInterrupt
                status, error = self.train(trial, {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus})
            finally:
                self.free.put(gpus)
        score = results(trial.run_dir, self.score)["score"]
        if status == DONE and score is None:
            status, error = FAILED, f"no {self.score} was logged"
        with self.lock:
            print(update(self.folder, trial, status, error, self.score), flush=True)
        if status == INTERRUPTED and self.stopping.is_set():
            raise KeyboardInterrupt
        value = score if status == DONE else TrialError(trial, status, error)
        ended = JobStatus.COMPLETED if status == DONE else JobStatus.FAILED
        return JobReturn(trial.overrides, config, working_dir=str(trial.run_dir), status=ended, _return_value=value)

    def train(self, trial: Trial, environment: dict[str, str]) -> tuple[str, str]:
        """Run the command, stop it where it is to stop, and return its status and its error, one line or ""."""
        try:
            with sole_user(trial.run_dir, lock=trial.run_dir / LOCK, key="run_dir", work="kits.train"):
                if not (trial.run_dir / LAST).exists():  # it begins anew, and the scores of an earlier attempt are not its own
                    (trial.run_dir / METRICS).unlink(missing_ok=True)
        except KitsError as error:  # a sweep that was killed has left it running
            return FAILED, str(error)
        with self.lock:
            update(self.folder, trial, RUNNING, "", self.score)
        # Without Hydra's variable a mistake is one line there too; W&B's would make one run of all trials.
        left_out = ("HYDRA_FULL_ERROR", "WANDB_RUN_ID")
        environment = {key: value for key, value in os.environ.items() if key not in left_out} | environment
        environment.setdefault("WANDB_RUN_GROUP", self.folder.name)
        log = trial.run_dir / LOG
        log.unlink(missing_ok=True)  # of an earlier attempt, or a link to another file
        with log.open("xb") as output:
            process = subprocess.Popen(
                self.command(trial),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # its ranks and loaders end with it, and Ctrl-C reaches the sweep alone
            )
        asked, deadline = "", 0.0
        try:
            while process.poll() is None:
                if asked and time.monotonic() > deadline:
                    signal_group(process, signal.SIGKILL)
                elif not asked and (self.stopping.is_set() or self.prune(trial.number, trial.run_dir)):
                    asked = INTERRUPTED if self.stopping.is_set() else PRUNED
                    deadline = time.monotonic() + self.options.grace_seconds
                    signal_group(process, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.options.poll_seconds)
        finally:
            signal_group(process, signal.SIGKILL)  # whatever it has started and left goes with it
        self.prune(trial.number, trial.run_dir)  # the others are compared with its last epochs too
        if asked or process.returncode in ASKED_TO_END:
            return asked or INTERRUPTED, ""
        return (FAILED, last_error(log, process.returncode)) if process.returncode else (DONE, "")

    def command(self, trial: Trial) -> list[str]:
        """Return the command line of a trial: what was given to all, its own overrides, and its folder."""
        hydra, search_path = self.config.hydra, self.loader.get_search_path().get_path()
        given = [path.path.removeprefix("file://") for path in search_path if path.provider == "command-line"]
        common = [override for override in hydra.overrides.hydra if not override.startswith("hydra.mode=")]
        own = [f"run_dir={quoted(str(trial.run_dir))}", "resume=auto", "overwrite=true"]
        flags = [f"--config-dir={path}" for path in given]
        return [sys.executable, "-m", f"kits.{hydra.job.config_name}", *common, *trial.overrides, *own, *flags]


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Make SIGTERM end this process as Ctrl-C does; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def name_of(parameters: dict[str, str]) -> str:
    """Name a trial, `loss.bias-1_seed-0`, in letters that shells, file systems and Hydra leave alone.

    Where letters were left out, the eight last ones tell it apart from others.
    """
    whole = "_".join(f"{key}-{value}" for key, value in parameters.items())
    short = re.sub(r"\d+\.\d{6,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", whole)
    name = re.sub(r"[^\w.+-]+", "-", short)[:LONGEST_NAME].rstrip("-")
    return name if name == whole else f"{name}_{sha256(whole.encode()).hexdigest()[:8]}"


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the training and every process that it has started and left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def last_error(log: Path, code: int) -> str:
    """Find the line of a training's output that says why it ended, its own or the exception's."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", most likely for want of memory" if name == "SIGKILL" else "")
    # Progress bars go back to the start of their line.
    lines = [line.strip() for line in re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace")) if line.strip()]
    own = [line.removeprefix("kits.train: ") for line in lines if line.startswith("kits.train: ")]
    return one_line((own or lines or [f"exit code {code}"])[-1])
