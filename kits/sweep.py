"""`python -m kits.train -m stage=coarse loss.bias=1,2,3 [sweep=grid|optuna|local|slurm]`: a process for each trial.

In the folder `sweep.dir` every trial has its run folder, with `train.log` and `trial.json` beside what every training leaves;
`sweep.csv` and `sweep.png` show all of them and are written again after every trial. Started again with the same command the
sweep goes on: what is done stays.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config import check_whole, choices_of, require
from kits.config.composing import checked, compose, spelled_out
from kits.config.quoting import quoted
from kits.core.errors import KitsError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from kits.sweeps.adaptive import Interval
    from kits.sweeps.pool import Launcher, Search
    from kits.sweeps.trial import Trial

# How launchers of ranks tell each rank that there are several. Not SLURM_NTASKS: a batch script has that too, which runs once.
RANKS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
SEARCHES, LAUNCHERS = ("grid", "optuna"), ("process", "local", "slurm")


def sweep(arguments: list[str]) -> None:
    """Run the trials that a command line of kits.train asks for, and leave sweep.csv and sweep.png.

    Raises:
        KitsError: the command line cannot be swept, or every trial failed.
    """
    refuse_ranks(arguments)
    ours, fixed, swept = sort_overrides(arguments)
    # The first value of each stands for all: what every trial would fail of is told before anything starts.
    sample = [*fixed, *(first(override) for override in swept)]
    config = compose("sweep", [*sample, *ours])
    options = config["sweep"]
    check(options, swept)
    checked("train", sample)
    folder = Path(options["dir"])

    from kits.core.locking import sole_user
    from kits.sweeps.pool import run_all
    from kits.sweeps.study import same_sweep

    work = "sweep, or a trial that one left,"
    with ended_as_by_hand(), sole_user(folder, lock=folder / ".lock", key="sweep.dir", work=work) as lock:
        same_sweep(folder, options["search"], fixed, [str(override.input_line) for override in swept])
        search = build_search(config, fixed, swept)
        launcher, jobs = build_launcher(config, lock)
        report = Report(folder, options["score"], search)
        print(f"sweep: {search.total} trials, {jobs} at once, in {folder}")
        run_all(search, launcher, jobs, options["poll_seconds"], report.ended)
        report.close()


@contextmanager
def ended_as_by_hand() -> Iterator[None]:
    """When the system asks this process to end it ends as after Ctrl-C: with its trials stopped and recorded."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse_ranks(arguments: list[str]) -> None:
    """Raise KitsError where a launcher of ranks has started this: every rank would run the whole sweep."""
    for name in RANKS:
        if (count := os.environ.get(name, "")).isdecimal() and int(count) > 1:
            raise KitsError(
                f"sweep: started as one of several ranks ({name}={count}), and each would run the whole sweep; "
                "start it once, without torchrun, srun or mpirun, and every trial starts its own ranks (trainer.devices): "
                f"python -m kits.train -m {shlex.join(arguments)}"
            )


def sort_overrides(arguments: list[str]) -> tuple[list[str], list[str], list[Override]]:
    """The command line in three: of the sweep itself, of every trial alike, and with several values.

    Raises:
        KitsError: a line cannot be parsed, or names what a sweep decides itself.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(spelled_out("train", arguments, sweeps=True))
    except HydraException as error:
        raise KitsError(f"sweep: {str(error).splitlines()[0]}; see the README's section on sweeps") from error
    ours: list[str] = []
    fixed: list[str] = []
    swept: list[Override] = []
    for override in parsed:
        key, line = override.key_or_group, str(override.input_line)
        if key.startswith("hydra"):
            raise KitsError(
                f"{key}: Hydra's sweepers and launchers train in this process, where every rank of DDP runs the whole sweep; "
                f"here each trial is a process of its own: {in_our_words(arguments)}"
            )
        if key in ("run_dir", "resume", "overwrite"):
            raise KitsError(f"{key}: each trial has a run folder of its own and goes on by itself; give sweep.dir=DIR instead")
        if key == "sweep" or key.startswith("sweep."):
            ours.append(line)
        elif override.is_sweep_override():
            swept.append(override)
        else:
            fixed.append(line)
    return ours, fixed, swept


def in_our_words(arguments: list[str]) -> str:
    """The command that does what a line for Hydra's plugins asks for."""
    plugins = {"optuna": "optuna", "submitit_local": "local", "submitit_slurm": "slurm"}
    kept = [argument for argument in arguments if not argument.lstrip("+").startswith("hydra")]
    asked = {argument.partition("=")[2] for argument in arguments if argument not in kept}
    chosen = ",".join(ours for plugin, ours in plugins.items() if plugin in asked)
    sweep = [f"sweep=[{chosen}]" if "," in chosen else f"sweep={chosen}"] if chosen else []
    return shlex.join(["python", "-m", "kits.train", "-m", *kept, *sweep])


def first(override: Override) -> str:
    """An override with the first of its values."""
    return f"{override.get_key_element()}={values_of(override)[0]}"


def values_of(override: Override) -> list[str]:
    """The values of an override as they would stand on a command line; of an interval its ends."""
    from hydra.core.override_parser.types import Glob, IntervalSweep

    value = override._value
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if isinstance(value, Glob):  # Hydra's own list of choices needs its loader
        found = value.filter(choices_of(override.key_or_group))
        if not found:
            raise KitsError(
                f"{override.input_line}: no choice of that name; there are {', '.join(choices_of(override.key_or_group))}"
            )
        return found
    return list(dict.fromkeys(override.sweep_string_iterator()))


def check(options: dict[str, Any], swept: list[Override]) -> None:
    """Hold the sweep's own options against what there is, and the search against the values."""
    for key, names in (("search", SEARCHES), ("launcher", LAUNCHERS)):
        if options[key] not in names:
            raise KitsError(f"sweep.{key}={options[key]}: no such {key}; take one of {', '.join(names)}")
    if options["jobs"] is not None:
        check_whole("sweep.jobs", options["jobs"], 1)
    if options["search"] == "optuna":
        for key in ("trials", "startup_trials"):
            check_whole(f"sweep.{key}", require(options.get(key), f"sweep.{key}", "add sweep=optuna"), 1)
    if not swept:
        raise KitsError("sweep: no key has several values; give some, as in loss.bias=1,2,3 or seed=range(5)")
    for override in swept:
        if override.is_interval_sweep() and options["search"] == "grid":
            raise KitsError(
                f"{override.input_line}: a grid needs values, as in {override.key_or_group}=1,2,3; or add sweep=optuna"
            )
        if not override.is_interval_sweep() and not values_of(override):
            raise KitsError(f"{override.input_line}: no value in it")


def build_search(config: dict[str, Any], fixed: list[str], swept: list[Override]) -> Search:
    """The search that the configuration names."""
    from kits.sweeps.adaptive import Adaptive
    from kits.sweeps.grid import Grid
    from kits.sweeps.trial import RESUME, Trial

    options = config["sweep"]
    folder = Path(options["dir"])

    def make(parameters: dict[str, str], name: str) -> Trial:
        own = {"run_dir": str(folder / name)}
        if config["logger"]["name"] == "wandb" and {"group", "run_name"} <= config["logger"].keys():
            shown = " ".join(f"{key}={value}" for key, value in parameters.items())
            own |= {"logger.group": folder.name, "logger.run_name": shown}
        named = [f"{key}={quoted(value)}" for key, value in own.items()]
        chosen = [f"{prefixes[key]}={value}" for key, value in parameters.items()]
        resume = [RESUME] if "resume" in config else []
        return Trial(
            name, parameters, [*fixed, *chosen, *named, *resume], folder / name, options["score"], options["grace_seconds"]
        )

    prefixes = {override.key_or_group: override.get_key_element() for override in swept}
    if options["search"] == "grid":
        return Grid({override.key_or_group: values_of(override) for override in swept}, make)
    return Adaptive({override.key_or_group: space_of(override) for override in swept}, make, options)


def space_of(override: Override) -> Interval | list[str]:
    """An override as the space of an adaptive search: an interval, or its values."""
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    from kits.sweeps.adaptive import Interval

    value = override._value
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return Interval(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        numbers = list(value.range())
        return Interval(min(numbers), max(numbers), step=abs(value.step), log="log" in value.tags)
    return values_of(override)


def build_launcher(config: dict[str, Any], lock: int) -> tuple[Launcher, int]:
    """What runs the trials, and how many at once."""
    from kits.sweeps.gpus import deal
    from kits.sweeps.pool import Processes
    from kits.sweeps.submitted import Submitted

    options = config["sweep"]
    if options["launcher"] == "slurm":
        jobs = require(options["jobs"], "sweep.jobs", "give the jobs in the queue at once")
        check_whole("trainer.devices", config["trainer"]["devices"], 1)  # so many tasks the job has
        return Submitted("slurm", Path(options["dir"]), options["parameters"], [None] * jobs), jobs
    gpus = deal(options["gpus"], options["jobs"], config["trainer"])
    if options["launcher"] == "local":
        return Submitted("local", Path(options["dir"]), options["parameters"], gpus), len(gpus)
    return Processes(gpus, (lock,)), len(gpus)


class Report:
    """What the user sees of a sweep: a line a trial, and the table and picture of all, always up to date."""

    def __init__(self, folder: Path, score: str, search: Search) -> None:
        self.folder, self.score, self.search = folder, score, search
        self.refresh()

    def ended(self, record: dict[str, Any]) -> None:
        """Take in a trial that has ended."""
        from kits.sweeps.table import line

        print(line(record), flush=True)
        self.refresh()

    def refresh(self) -> None:
        """Write sweep.csv and sweep.png from the records in the folder."""
        from kits.sweeps.picture import draw
        from kits.sweeps.table import read_trials, write_table

        self.records = read_trials(self.folder)
        write_table(self.folder / "sweep.csv", self.records)
        draw(self.folder / "sweep.png", self.records, self.score)

    def close(self) -> None:
        """Name the best trial.

        Raises:
            KitsError: there is none.
        """
        scored = [record for record in self.records if record.get("score") is not None]
        failed = sum(record["status"] == "failed" for record in self.records)
        table = self.folder / "sweep.csv"
        if not scored:
            raise KitsError(f"sweep.dir={self.folder}: no trial has a score; {table} says why")
        best = max(scored, key=lambda record: record["score"])
        print(f"{len(self.records)} trials, {failed} failed: {table}")
        print(f"best {self.score} {best['score']:.4f}: {best['run_dir']}/best.ckpt", file=sys.stdout)
