"""The steps around two trainings: each a command with its configuration, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kits.config import plain, require
from kits.config.composing import checked, compose
from kits.config.schema.commands import Workflow
from kits.core.errors import KitsError
from kits.data.index import IMAGE_NAME
from kits.data.splits import Split, read_split
from kits.runs.folder import BEST
from kits.workflows.command_line import assigned, flat, later_wins, passed_on
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
def configured(name: str, command: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    """Compose the configuration of a step; that of a training is not checked, see `check_training`.

    Raises:
        KitsError: it is refused; the text names the step.
    """
    try:
        config: dict[str, Any] = (
            compose(command, list(arguments)) if command == "train" else plain(checked(command, list(arguments)))
        )
    except KitsError as error:
        raise KitsError(f"{name}: {error}") from error
    return config


@cache
def check_training(name: str, arguments: tuple[str, ...], *, boxes: bool) -> None:
    """Refuse what kits.train would refuse once the data are prepared.

    With `boxes`, once the ROIs are predicted.

    Raises:
        KitsError: it is refused; the text names the step.
    """
    with TemporaryDirectory() as folder:  # files that stand for those which do not exist yet
        for file in ("index.json", "boxes.json"):
            (Path(folder) / file).touch()
        places = {"data.cache": folder, **({"data.boxes": f"{folder}/boxes.json"} if boxes else {})}
        try:
            checked("train", later_wins([*arguments, *assigned(places)]))
        except KitsError as error:
            raise KitsError(f"{name}: {error}") from error


class StepBuilder:
    """Makes steps that write to one folder.

    Args:
        options: of the workflow.
        overrides: the command line; those of other keys than the options' are for every training.

    Attributes:
        output: that folder.
        overrides: by step what is given for it beside what is made here; `train` is for all trainings.
    """

    def __init__(self, options: Workflow, overrides: Sequence[str]) -> None:
        self.output = Path(options.output)
        given = {step: assigned(flat(value)) for step, value in options if value is None or isinstance(value, dict)}
        self.overrides = given | {"train": passed_on(overrides, type(options).model_fields)}

    @property
    def boxes(self) -> Path:
        """The file of out-of-fold ROIs."""
        return self.output / "boxes" / "boxes.json"

    @property
    def predictions(self) -> Path:
        """The folder of label maps, one a case."""
        return self.output / "predictions"

    @property
    def evaluation(self) -> Path:
        """The folder of scores."""
        return self.output / "evaluation"

    def preparing(self, training: Mapping[str, Any]) -> Step:
        """Make the cache and the split that a training's configuration asks for."""
        data, split = training["data"], training["data"]["split"]
        root = require(data["root"], "data.root", "add data.root=DIR or set KITS_DATA (see .env.example)")
        if data["layout"] != "kits":
            tree = f"python -m kits.convert data={data['layout']} root={root} output=DIR"
            raise KitsError(f"data.layout={data['layout']}: scans are predicted and scored in a KiTS tree; make it with {tree}")
        arguments = assigned({"data.root": root, "data.cache": data["cache"]} | data_of(training, PREPARED))
        if split is not None:  # where a training leaves it to the cache there is none
            kept = {f"split.{key}": value for key, value in split.items() if key not in ("kind", "renew")}
            arguments += [f"split={split['kind']}", *assigned(kept)]
        outputs = [Path(data["cache"]) / "index.json", splits_of(training)]
        return self._step("prepare", "prepare", arguments, {"data.root": Path(root)}, [], outputs)

    def training(self, name: str, arguments: Sequence[str]) -> Step:
        """Train; the run folder has the step's name."""
        given = later_wins([*arguments, *assigned({"run_dir": self.output / name})])
        config = configured(name, "train", tuple(given))
        if config.get("resume"):
            raise KitsError(f"{name}: resume: an interrupted training goes on by itself; leave it out")
        inputs = {"the prepared data": Path(config["data"]["cache"]) / "index.json", "the split": splits_of(config)}
        if config["stage"] == "fine" and config["data"]["roi"] == "oof":
            inputs["boxes.json"] = Path(config["data"]["boxes"])
        return Step(name, "train", given, config, inputs, [], [best_of(self.output / name)])

    def predicting(self, name: str, arguments: Mapping[str, Any], outputs: Sequence[Path], split: Path | None = None) -> Step:
        """Predict; the checkpoints, the scans and the split that names them are its inputs."""
        inputs = {"input": Path(arguments["input"]), **({} if split is None else {"the split": split})}
        for stage in ("coarse", "fine"):
            paths = arguments.get(stage, [])
            inputs |= {f"{path.parent.name}/{path.name}": path for path in (paths if isinstance(paths, list) else [paths])}
        return self._step(name, "predict", assigned(arguments), inputs, [], outputs)

    def boxing(self, training: Mapping[str, Any], runs: Sequence[Path]) -> Step:
        """Find the ROIs of every prepared case by the coarse network of the fold that held it out.

        Args:
            training: the configuration of one of the coarse trainings.
            runs: the run folders of all folds.
        """
        root, cases = Path(training["data"]["root"]), kept_split(training).cases
        others = {path.parent.name for path in root.glob(f"*/{IMAGE_NAME}")} - set(cases)
        arguments = {"coarse": [best_of(run) for run in runs], "input": root, "output": self.boxes.parent}
        arguments |= {"cases": cases} if others else {}
        inputs = {"input": root, "the split": splits_of(training)} | {f"{run.name}/{BEST}": best_of(run) for run in runs}
        return self._step("boxes", "boxes", assigned(arguments), inputs, [], [self.boxes])

    def evaluating(self, training: Mapping[str, Any], arguments: Mapping[str, Any], after: Sequence[str]) -> Step:
        """Score `predictions`."""
        given = {"prediction": self.predictions, "output": self.evaluation, **arguments, **data_of(training, TRUTH)}
        inputs = {"truth": Path(arguments["truth"])} | (
            {"the split": arguments["split_file"]} if "split_file" in arguments else {}
        )
        outputs = [self.evaluation / name for name in ("cases.csv", "summary.json", "table.txt")]
        return self._step("evaluate", "evaluate", assigned(given), inputs, after, outputs)

    def reporting(self, training: Mapping[str, Any], arguments: Mapping[str, Any], after: Sequence[str]) -> Step:
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
        return Step(name, command, given, configured(name, command, tuple(given)), inputs, after, outputs)


def data_of(training: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Say of another command's `data` what a training says."""
    return {f"data.{key}": training["data"][key] for key in keys}


def splits_of(training: Mapping[str, Any]) -> Path:
    """Name the file that says which cases train and which validate."""
    return Path(training["data"]["cache"]) / "splits.json"


def kept_split(training: Mapping[str, Any]) -> Split:
    """Read the split that was prepared."""
    return read_split(splits_of(training))


def best_of(run: Path) -> Path:
    """Name the checkpoint of a run that is used."""
    return run / BEST
