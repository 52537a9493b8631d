"""Schemas of the commands that run others: conf/pipeline.yaml, conf/crossval.yaml."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from kits.config.schema.base import InputPath, Options, OutputFolder, Switch, Text
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
