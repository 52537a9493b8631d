"""The steps around two trainings: each a command with its configuration, its inputs and its outputs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kits.config import flat, plain, require
from kits.config.composing import checked, compose
from kits.config.quoting import quoted
from kits.config.schema.base import text
from kits.config.schema.training import Coarse, Fine
from kits.config.schema.workflow import Workflow
from kits.core.errors import KitsError
from kits.data.index import IMAGE_NAME
from kits.data.splits import Split, read_split
from kits.runs.folder import BEST
from kits.workflows.step import Step

# Of the group `data` what the commands before and after a training must say as the training does.
PREPARED = (
    "label_name",
    "classes",
    "labels",
    "unlabeled_from",
    "exclude",
    "skip_invalid",
    "coarse_size",
    "coarse_z_mm",
    "roi_rule",
)
TRUTH = ("label_name", "classes", "labels")


@cache
def configured(name: str, command: str, arguments: tuple[str, ...]) -> Any:
    """Compose a step's typed options before earlier steps have run; a refusal names the step."""
    try:
        return checked(command, list(arguments), prepared=False)
    except KitsError as error:
        raise KitsError(f"{name}: {error}") from error


@cache
def data_asked(name: str, arguments: tuple[str, ...]) -> Mapping[str, Any]:
    """Compose the group `data` of a training, before it is known what else it is given."""
    try:
        data: Mapping[str, Any] = compose("train", list(arguments))["data"]
    except KitsError as error:
        raise KitsError(f"{name}: {error}") from error
    return data


class StepBuilder:
    """Makes steps that write to one folder.

    Args:
        options: of the workflow.
        overrides: the command line; those of other keys than the options' are for every training.

    Attributes:
        output: that folder.
        boxes: the file of out-of-fold ROIs in it.
        predictions, evaluation: the folders of label maps, one a case, and of scores.
        overrides: by step what is given for it beside what is made here; `train` is for all trainings.
    """

    def __init__(self, options: Workflow, overrides: Sequence[str]) -> None:
        self.output = output = Path(options.output)
        self.boxes, self.predictions, self.evaluation = output / "boxes/boxes.json", output / "predictions", output / "evaluation"
        given = {step: assigned(flat(value)) for step, value in options if value is None or isinstance(value, dict)}
        self.overrides = given | {"train": passed_on(overrides, type(options).model_fields)}

    def preparing(self, training: Coarse | Fine) -> Step:
        """Make the cache and the split that a training asks for."""
        data = training.data
        root = require(data.root, "data.root", "add data.root=DIR or set KITS_DATA (see .env.example)")
        if data.layout != "kits":
            tree = f"python -m kits.convert data={data.layout} root={root} output=DIR"
            raise KitsError(f"data.layout={data.layout}: scans are predicted and scored in a KiTS tree; make it with {tree}")
        arguments = assigned({"data.root": root, "data.cache": data.cache} | data_of(training, PREPARED))
        if data.split is not None:  # where a training leaves it to the cache there is none
            kept = {f"split.{key}": value for key, value in data.split if key not in ("kind", "renew")}
            arguments += [f"split={data.split.kind}", *assigned(kept)]
        outputs = [Path(data.cache) / "index.json", splits_of(training)]
        return self._step("prepare", "prepare", arguments, {"data.root": Path(root)}, [], outputs)

    def training(self, name: str, arguments: Sequence[str]) -> Step:
        """Train; the run folder has the step's name."""
        given = later_wins([*arguments, *assigned({"run_dir": self.output / name})])
        options: Coarse | Fine = configured(name, "train", tuple(given))
        if options.resume:
            raise KitsError(f"{name}: resume: an interrupted training goes on by itself; leave it out")
        inputs = {"the prepared data": Path(options.data.cache) / "index.json", "the split": splits_of(options)}
        if options.data.boxes is not None:
            inputs["boxes.json"] = Path(options.data.boxes)
        return Step(name, "train", given, plain(options), inputs, [], [self.output / name / BEST])

    def predicting(self, name: str, arguments: Mapping[str, Any], outputs: Sequence[Path], split: Path | None = None) -> Step:
        """Predict; the checkpoints, the scans and the split that names them are its inputs."""
        inputs = {"input": Path(arguments["input"]), **({} if split is None else {"the split": split})}
        for stage in ("coarse", "fine"):
            paths = arguments.get(stage, [])
            inputs |= {f"{path.parent.name}/{path.name}": path for path in (paths if isinstance(paths, list) else [paths])}
        return self._step(name, "predict", assigned(arguments), inputs, [], outputs)

    def boxing(self, training: Coarse | Fine, runs: Sequence[Path]) -> Step:
        """Find the ROIs of every prepared case by the coarse network of the fold that held it out.

        Args:
            training: the options of one of the coarse trainings.
            runs: the run folders of all folds.
        """
        root, cases = Path(training.data.root or ""), kept_split(training).cases
        others = {path.parent.name for path in root.glob(f"*/{IMAGE_NAME}")} - set(cases)
        arguments = {"coarse": [run / BEST for run in runs], "input": root, "output": self.boxes.parent}
        arguments |= {"cases": cases} if others else {}
        inputs = {"input": root, "the split": splits_of(training)} | {f"{run.name}/{BEST}": run / BEST for run in runs}
        return self._step("boxes", "boxes", assigned(arguments), inputs, [], [self.boxes])

    def evaluating(self, training: Coarse | Fine, arguments: Mapping[str, Any], after: Sequence[str]) -> Step:
        """Score `predictions`."""
        given = {"prediction": self.predictions, "output": self.evaluation, **arguments, **data_of(training, TRUTH)}
        names = {"truth": "truth", "split_file": "the split"}
        inputs = {name: Path(arguments[key]) for key, name in names.items() if key in arguments}
        outputs = [self.evaluation / name for name in ("cases.csv", "summary.json", "table.txt")]
        return self._step("evaluate", "evaluate", assigned(given), inputs, after, outputs)

    def reporting(self, training: Coarse | Fine, arguments: Mapping[str, Any], after: Sequence[str]) -> Step:
        """Draw the page of `predictions`."""
        folder = self.output / "report"
        given = {"prediction": self.predictions, "output": folder, **arguments, **data_of(training, TRUTH)}
        inputs = {key: Path(arguments[key]) for key in ("image", "truth") if key in arguments}
        return self._step("report", "report", assigned(given), inputs, after, [folder / "index.html"])

    def _step(
        self,
        name: str,
        command: str,
        arguments: Sequence[str],
        inputs: Mapping[str, Path],
        after: Sequence[str],
        outputs: Sequence[Path],
    ) -> Step:
        given = later_wins([*arguments, *self.overrides.get(command, ())])
        return Step(name, command, given, plain(configured(name, command, tuple(given))), inputs, after, outputs)


def data_of(training: Coarse | Fine, keys: Sequence[str]) -> dict[str, Any]:
    """Say of another command's `data` what a training says."""
    return {f"data.{key}": plain(getattr(training.data, key)) for key in keys}


def splits_of(training: Coarse | Fine) -> Path:
    """Name the file that says which cases train and which validate."""
    return Path(training.data.cache) / "splits.json"


def kept_split(training: Coarse | Fine) -> Split:
    """Read the split that was prepared."""
    return read_split(splits_of(training))


def passed_on(overrides: Iterable[str], own: Collection[str]) -> list[str]:
    """Leave out the overrides of a command's own keys; the others are for its trainings."""
    return [override for override in overrides if re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0] not in own]


def spelled(value: Any) -> str:
    """Spell a plain value as the right side of an override."""
    return text(value, quoted)


def assigned(values: Mapping[str, Any]) -> list[str]:
    """Make the overrides that give these keys these values."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def later_wins(overrides: Iterable[str]) -> list[str]:
    """Leave out overrides whose key a later one gives again."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
