"""Trials that learn from the earlier ones, and end early where they fall behind (Optuna).

The study lives in this process and in a journal file; a trial knows nothing of it. What a trial has reached is read from its
metrics.csv, so the same search serves trials on other machines that share the file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from kits.config import one_line
from kits.core.errors import KitsError
from kits.sweeps.grid import Maker, name_of
from kits.sweeps.scores import read_metrics, scored
from kits.sweeps.trial import DONE, FAILED, PRUNED, Trial, read_record

if TYPE_CHECKING:
    import optuna

JOURNAL, STUDY = "optuna.journal", "sweep"


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; whole ones where both are."""

    low: float
    high: float
    step: float | None = None
    log: bool = False


Space = dict[str, Interval | list[str]]


class Adaptive:
    """The search by tree-structured Parzen estimators with median pruning.

    Args:
        space: by key an interval, or the values as they would stand on a command line.
        make: see `Maker`.
        options: the node `sweep` of the configuration.

    Raises:
        KitsError: Optuna is not installed, or it cannot draw from the space.
    """

    def __init__(self, space: Space, make: Maker, options: dict[str, Any]) -> None:
        try:
            import optuna
        except ImportError as error:
            raise KitsError("sweep=optuna: needs Optuna; install it with pip install 'kits[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.make, self.options, self.total = optuna, make, options, options["trials"]
        self.space = {key: distribution(key, values) for key, values in space.items()}
        self.study = optuna.create_study(
            storage=journal(Path(options["dir"]) / JOURNAL),
            study_name=STUDY,
            direction="maximize",
            pruner=pruner(options["pruning"]),
            load_if_exists=True,
        )
        self.running: dict[str, optuna.Trial] = {}
        self.left = self.left_over()

    def left_over(self) -> list[Trial]:
        """The trials that an earlier start has left unfinished; those whose training did end are told now."""
        left = []
        for frozen in self.study.get_trials(states=(self.optuna.trial.TrialState.RUNNING,)):
            trial = self.take(self.optuna.Trial(self.study, frozen._trial_id))
            record = read_record(trial.run_dir) or {}
            if record.get("status") in (DONE, FAILED, PRUNED):
                self.tell(trial, record)
            else:
                left.append(trial)
        return left

    def next(self) -> Trial | None:
        """The next trial to run; None where there are as many as asked for."""
        if self.left:
            return self.left.pop(0)
        number = len(self.study.get_trials(deepcopy=False))
        if number >= self.total:
            return None
        # Seeded anew for every trial, so that a search that is interrupted draws what it would have drawn without.
        seed = Random(f"{self.options['seed']} {number}").getrandbits(32)
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.options["startup_trials"])
        return self.take(self.study.ask(self.space))

    def take(self, drawn: optuna.Trial) -> Trial:
        """A drawn trial as one that can be run."""
        parameters = {key: str(value) for key, value in drawn.params.items()}
        short = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in drawn.params.items()}
        trial = self.make(parameters, f"{drawn.number:03d}_{name_of(short)}")
        self.running[trial.name] = drawn
        return trial

    def is_hopeless(self, trial: Trial) -> bool:
        """Whether a running trial is behind the others after an epoch that it has finished since."""
        return any(drawn.should_prune() for drawn in self.report(trial))

    def report(self, trial: Trial) -> Iterator[optuna.Trial]:
        """Report the epochs that a trial has finished since, and yield it after each."""
        drawn = self.running[trial.name]
        reported = self.study.get_trials(deepcopy=False)[drawn.number].intermediate_values
        for row in scored(read_metrics(trial.run_dir), trial.score):
            epoch = int(row["epoch"])
            if epoch not in reported:
                drawn.report(row[trial.score], epoch)
                yield drawn

    def tell(self, trial: Trial, record: dict[str, Any]) -> None:
        """How a trial ended. One that was interrupted goes on when the sweep is started again."""
        states = self.optuna.trial.TrialState
        for _ in self.report(trial):  # the others are compared with its last epochs too
            pass
        drawn = self.running.pop(trial.name)
        if record["status"] == DONE:
            self.study.tell(drawn, record["score"])
        elif record["status"] in (PRUNED, FAILED):
            self.study.tell(drawn, state=states.PRUNED if record["status"] == PRUNED else states.FAIL)


def distribution(key: str, values: Interval | list[str]) -> optuna.distributions.BaseDistribution:
    """Optuna's word for an interval or a choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution(values)
    try:
        if isinstance(values.low, int) and isinstance(values.high, int):
            return IntDistribution(values.low, values.high, log=values.log, step=int(values.step or 1))
        return FloatDistribution(values.low, values.high, log=values.log, step=values.step)
    except ValueError as error:
        raise KitsError(f"{key}: no interval to draw from ({one_line(error)}); give interval(LOW,HIGH)") from error


def journal(path: Path) -> optuna.storages.BaseStorage:
    """The file that remembers the study; appended to, so that it outlives a kill at any moment, on a network's disk too."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def pruner(options: dict[str, Any] | None) -> optuna.pruners.BasePruner:
    """Median pruning, or none."""
    from optuna.pruners import MedianPruner, NopPruner

    if options is None:
        return NopPruner()
    return MedianPruner(n_startup_trials=options["startup_trials"], n_warmup_steps=options["warmup_epochs"])
