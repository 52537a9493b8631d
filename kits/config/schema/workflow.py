"""Schemas of what runs commands: the workflows, and our plugins for Hydra's multirun.

conf/pipeline.yaml, conf/crossval.yaml, conf/hydra/launcher/processes.yaml, conf/hydra/sweeper/tpe.yaml.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from kits.config.schema.base import (
    Count,
    Index,
    InputPath,
    Length,
    Options,
    OutputFolder,
    Positive,
    Switch,
    Text,
    Whole,
)
from kits.config.schema.evaluation import Bootstrap

# More for one step of several: what could be typed behind its command.
StepOverrides = dict[str, Any] | None


class Workflow(Options):
    """Options of both workflows; every other key is of kits.train, whose own schema judges it."""

    model_config = ConfigDict(extra="ignore")

    output: OutputFolder
    overwrite: Switch
    prepare: StepOverrides
    boxes: StepOverrides
    predict: StepOverrides
    evaluate: StepOverrides


class Pipeline(Workflow):
    """conf/pipeline.yaml."""

    study: Text
    input: InputPath | None
    truth: InputPath | None
    coarse: StepOverrides
    fine: StepOverrides
    report: StepOverrides


class Crossval(Workflow):
    """conf/crossval.yaml."""

    coarse: InputPath | None
    bootstrap: Bootstrap


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
