"""Options of our plugins for Hydra's multirun.

conf/hydra/launcher/processes.yaml, conf/hydra/sweeper/tpe.yaml.
"""

from __future__ import annotations

from typing import Any

from kits.config.schema.base import Count, Index, Length, Options, Positive, Text, Whole


class Processes(Options):
    """The launcher that starts a process for each trial."""

    n_jobs: Count | None
    gpus: list[Index | Text] | None
    score: Text
    poll_seconds: Positive
    grace_seconds: Length


class Pruning(Options):
    """The rule for stopping a trial that falls behind, of Optuna's MedianPruner with epochs for steps."""

    n_startup_trials: Index
    n_warmup_steps: Index


class TPE(Options):
    """The sweeper that searches."""

    n_trials: Count
    n_jobs: Count | None
    seed: Whole
    n_startup_trials: Count
    pruning: Pruning | None
    params: dict[str, Any] | None
