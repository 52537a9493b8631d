"""A sweeper for Hydra that learns from earlier trials, and stops those that fall behind (Optuna).

Hydra's public sweeper for Optuna needs Optuna 2 and cannot stop a trial. The study lives in this process and in a journal file; a
trial knows nothing of it: what a running one has reached is read from its metrics.csv.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kits.config import one_line
from kits.config.schema import parse
from kits.config.schema.workflow import TPE
from kits.core.errors import KitsError
from kits.hydra_plugins.launcher import ProcessLauncher, sigterm_as_interrupt
from kits.hydra_plugins.trial_records import FAILED, INTERRUPTED, JOURNAL, PRUNED, no_trace_of_a_refusal, scored_epochs

if TYPE_CHECKING:
    import optuna


class TPESweeper(Sweeper):
    """Searches with tree-structured Parzen estimators, and with our own launcher prunes by the median.

    Args: see conf/hydra/sweeper/tpe.yaml.
    """

    def __init__(self, **options: Any) -> None:
        self.options: TPE = parse(TPE, options, "hydra.sweeper")
        self.lock, self.stopping = threading.Lock(), threading.Event()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Let Hydra make the launcher that the configuration names.

        Raises:
            KitsError: Optuna is not installed.
        """
        try:
            import optuna
        except ImportError as error:
            raise KitsError("hydra/sweeper=tpe: needs Optuna; install it with pip install 'kits[sweep]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.folder, self.loader = optuna, Path(config.hydra.sweep.dir), hydra_context.config_loader
        self.launcher: Any = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are `n_trials`; those that an earlier start has left unfinished come first.

        Raises:
            KitsError: there is nothing to search, the folder holds another search, or no trial has a score in the end.
        """
        lines = [*(f"{key}={value}" for key, value in (self.options.params or {}).items()), *arguments]
        overrides = OverridesParser.create(self.loader).parse_overrides(lines)
        self.fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        self.space = {each.get_key_element(): distribution(each) for each in overrides if each.is_sweep_override()}
        if not self.space:
            raise KitsError(
                "hydra/sweeper=tpe: nothing to search; give a space, as in loss.bias=interval(1,5) or loss=choice(a,b)"
            )
        with no_trace_of_a_refusal(self.folder):
            self.search()
        if not self.has_score():
            raise KitsError(f"hydra.sweep.dir={self.folder}: no trial has a score; what each of them says stands above")

    def search(self) -> None:
        """Open the study and run what it draws, some trials at once."""
        self.study = self.open_study()
        self.left = self.study.get_trials(states=(self.optuna.trial.TrialState.RUNNING,))
        jobs: Any = self.options.n_jobs or getattr(self.launcher, "n_jobs", 1)
        if isinstance(self.launcher, ProcessLauncher):
            self.launcher.prune, self.launcher.stopping = self.prune, self.stopping
        # A thread for each trial at once: where one is pruned the next begins, and nobody waits for the slowest.
        with sigterm_as_interrupt(), ThreadPoolExecutor(jobs) as pool:
            try:
                for thread in [pool.submit(self.work) for _ in range(jobs)]:
                    thread.result()
            except BaseException:
                self.stopping.set()
                raise

    def open_study(self) -> optuna.Study:
        """Begin a study in the sweep's folder, or go on with it."""
        from optuna.pruners import MedianPruner, NopPruner
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder.mkdir(parents=True, exist_ok=True)
        # Appended to, so that it outlives a kill at any moment, on a network's disk too.
        storage = JournalStorage(JournalFileBackend(str(self.folder / JOURNAL)))
        pruning = self.options.pruning
        pruner = MedianPruner(pruning.n_startup_trials, pruning.n_warmup_steps) if pruning else NopPruner()
        study = self.optuna.create_study(
            storage=storage, study_name="sweep", direction="maximize", pruner=pruner, load_if_exists=True
        )
        now = sorted([*self.fixed, *(f"{key}: {space}" for key, space in self.space.items())])
        before = study.user_attrs.get("asked", now)
        if before != now:
            difference = " ".join(sorted({*before} ^ {*now}))
            raise KitsError(f"hydra.sweep.dir={self.folder}: holds another search ({difference}); give another folder")
        study.set_user_attr("asked", now)
        return study

    def work(self) -> None:
        """Draw a trial, run it and tell the study, until there are enough."""
        states = self.optuna.trial.TrialState
        while (drawn := self.next()) is not None:
            overrides = [*self.fixed, *(f"{key}={value}" for key, value in drawn.params.items())]
            try:
                (result,) = self.launcher.launch([overrides], initial_job_idx=drawn.number)
            except KitsError as error:  # the schema refuses these values together
                self.study.tell(drawn.number, state=states.FAIL)
                if not self.has_score():  # and most likely all that can be drawn
                    raise
                print(f"trial {drawn.number}: {error}", flush=True)
                continue
            if result.status == JobStatus.COMPLETED:
                self.study.tell(drawn.number, float(result.return_value))
            else:  # then the value is an exception; a trial that was interrupted goes on when the search is started again
                status = getattr(result._return_value, "status", FAILED)
                if status != INTERRUPTED:
                    self.study.tell(drawn.number, state=states.PRUNED if status == PRUNED else states.FAIL)

    def next(self) -> Any:
        """Return the next trial to run, with `number` and `params`; None after as many as asked for."""
        with self.lock:
            number = len(self.study.get_trials(deepcopy=False))
            if self.left and not self.stopping.is_set():
                return self.left.pop(0)
            if self.stopping.is_set() or number >= self.options.n_trials:
                return None
            # Seeded anew for every trial, so that a search that is interrupted draws what it would have drawn without.
            seed = Random(f"{self.options.seed} {number}").getrandbits(32)
            self.study.sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.options.n_startup_trials)
            return self.study.ask(self.space)

    def prune(self, number: int, run_dir: Path) -> bool:
        """Report the epochs that a trial has finished since, and tell whether it is behind after one of them."""
        frozen, score, behind = self.study.get_trials(deepcopy=False)[number], self.launcher.score, False
        drawn, reported = self.optuna.Trial(self.study, frozen._trial_id), {*frozen.intermediate_values}
        for epoch, value in ((int(row["epoch"]), row[score]) for row in scored_epochs(run_dir, score)):
            if epoch not in reported:
                drawn.report(value, epoch)
                behind = behind or drawn.should_prune()
        return behind

    def has_score(self) -> bool:
        """Tell whether any trial has come to its end."""
        return bool(self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,)))


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Return Optuna's word for an interval, or for the values of a choice, range or glob."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    interval = override.value()
    try:
        if not isinstance(interval, IntervalSweep):
            return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
        low: Any = interval.start
        high: Any = interval.end
        whole = isinstance(low, int) and isinstance(high, int)
        return (IntDistribution if whole else FloatDistribution)(low, high, log="log" in interval.tags)
    except ValueError as error:
        raise KitsError(f"{override.input_line}: nothing to draw from ({one_line(error)})") from error
