"""The steps around two trainings: each a command with its configuration, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kits.config import plain, require
from kits.core.errors import KitsError
from kits.data.index import IMAGE_NAME
from kits.data.splits import Split, read_split
from kits.runs.folder import BEST
from kits.workflows.command_line import later_wins, spelled
from kits.workflows.step import Step

Composer = Callable[[str, list[str]], Any]
# Of the group `data` what the commands before and after a training must say as the training does.
PREPARED = ("label_name", "classes", "unlabeled_from", "exclude", "skip_invalid", "coarse_size", "coarse_z_mm", "roi_rule")
TRUTH = ("label_name", "classes")
# What holds for both stages, because they read one cache.
SHARED = ("root", "cache", "label_name", "classes", "coarse_size", "coarse_z_mm", "roi_rule", "split")


@dataclass(frozen=True)
class Builder:
    """Makes steps that write to one folder.

    Attributes:
        output: that folder.
        overrides: by step what the command line gives beside what is made here; `train` is for all trainings.
        compose: a command's configuration under overrides.
        check: a command's typed options; refuses what the command would refuse.
    """

    output: Path
    overrides: Mapping[str, Sequence[str]]
    compose: Composer
    check: Composer

    def configuration(self, name: str, command: str, arguments: Sequence[str]) -> dict[str, Any]:
        """A command's configuration; that of a training is not checked, see `check_training`.

        Raises:
            KitsError: it is refused; the text names the step.
        """
        try:
            return plain((self.compose if command == "train" else self.check)(command, list(arguments)))
        except KitsError as error:
            raise KitsError(f"{name}: {error}") from error

    def check_training(self, name: str, arguments: Sequence[str], *, boxes: bool) -> None:
        """Refuse what kits.train would refuse once the data are prepared and, with `boxes`, the ROIs predicted.

        Raises:
            KitsError: it is refused; the text names the step.
        """
        with TemporaryDirectory() as folder:  # files that stand for those which do not exist yet
            for file in ("index.json", "boxes.json"):
                (Path(folder) / file).touch()
            places = {"data.cache": folder, **({"data.boxes": f"{folder}/boxes.json"} if boxes else {})}
            try:
                self.check("train", later_wins([*arguments, *assigned(places)]))
            except KitsError as error:
                raise KitsError(f"{name}: {error}") from error

    def training(self, name: str, arguments: Sequence[str]) -> Step:
        """A training; its run folder has the step's name."""
        overrides = later_wins([*arguments, f"run_dir={spelled(self.output / name)}"])
        config = self.configuration(name, "train", overrides)
        if config.get("resume"):
            raise KitsError(f"{name}: resume: an interrupted training goes on by itself; leave it out")
        inputs = {"the prepared data": cache_of(config) / "index.json", "the split": splits_of(config)}
        if config["stage"] == "fine" and config["data"]["roi"] == "oof":
            inputs["boxes.json"] = Path(config["data"]["boxes"])
        return Step(name, "train", overrides, config, inputs, {f"{name}/best.ckpt": best_of(self.output / name)})

    def given(self, step: str) -> Sequence[str]:
        """The user's overrides for a step."""
        return self.overrides.get(step, ())

    def preparing(self, training: Mapping[str, Any]) -> Step:
        """The cache and the split that a training's configuration asks for."""
        data = training["data"]
        root = require(data["root"], "data.root", "add data.root=DIR or set KITS_DATA (see .env.example)")
        places = [f"data.root={spelled(root)}", f"data.cache={spelled(data['cache'])}"]
        overrides = [*places, *split_overrides(data["split"])]
        overrides += self._data_as(data, PREPARED, "prepare", overrides)
        overrides = later_wins([*overrides, *self.given("prepare")])
        config = self.configuration("prepare", "prepare", overrides)
        outputs = {"the prepared data": cache_of(training) / "index.json", "the split": splits_of(training)}
        return Step("prepare", "prepare", overrides, config, {"data.root": Path(root)}, outputs)

    def predicting(self, name: str, arguments: Mapping[str, Any], outputs: Mapping[str, Path]) -> Step:
        """A prediction; its checkpoints, split file and scans are its inputs."""
        overrides = later_wins([*assigned(arguments), *self.given("predict")])
        config = self.configuration(name, "predict", overrides)
        inputs = {"input": Path(config["input"])}
        for stage in ("coarse", "fine"):
            paths = config[stage] if isinstance(config[stage], list) else [config[stage]]
            inputs |= {f"{Path(path).parent.name}/{Path(path).name}": Path(path) for path in paths if path is not None}
        if Path(str(config["split"]["source"])).suffix == ".json":
            inputs["the split"] = Path(config["split"]["source"])
        return Step(name, "predict", overrides, config, inputs, outputs)

    def boxing(self, coarse: Mapping[str, Any], runs: Sequence[Path]) -> Step:
        """The ROIs of every prepared case by the coarse network of the fold that held it out.

        Args:
            coarse: the configuration of one of the trainings.
            runs: the run folders of all folds.
        """
        root, cases = Path(coarse["data"]["root"]), kept_split(coarse).cases
        others = {path.parent.name for path in root.glob(f"case_*/{IMAGE_NAME}")} - set(cases)
        arguments = {"split": "oof", "coarse": [best_of(run) for run in runs], "input": root, "output": self.boxes.parent}
        step = self.predicting("boxes", {**arguments, **({"cases": cases} if others else {})}, {"boxes.json": self.boxes})
        return replace(step, inputs={**step.inputs, "the split": splits_of(coarse)})

    def evaluating(self, training: Mapping[str, Any], arguments: Mapping[str, Any]) -> Step:
        """The scores of `predictions`."""
        overrides = assigned({"prediction": self.predictions, **arguments, "output": self.evaluation})
        overrides += self._data_as(training["data"], TRUTH, "evaluate", overrides)
        overrides = later_wins([*overrides, *self.given("evaluate")])
        config = self.configuration("evaluate", "evaluate", overrides)
        inputs = {"predictions": self.predictions, "truth": Path(config["truth"])}
        if config["split"]["source"] is not None:
            inputs["the split"] = Path(config["split"]["source"])
        outputs = {f"evaluation/{name}": self.evaluation / name for name in ("cases.csv", "summary.json", "table.txt")}
        return Step("evaluate", "evaluate", overrides, config, inputs, outputs)

    def reporting(self, training: Mapping[str, Any], arguments: Mapping[str, Any]) -> Step:
        """The page of pictures of `predictions`."""
        folder = self.output / "report"
        overrides = assigned({"prediction": self.predictions, **arguments, "output": folder})
        overrides += self._data_as(training["data"], TRUTH, "report", overrides)
        overrides = later_wins([*overrides, *self.given("report")])
        config = self.configuration("report", "report", overrides)
        inputs = {"predictions": self.predictions, "image": Path(config["image"])}
        if config["truth"] is not None:
            inputs["truth"] = Path(config["truth"])
        return Step("report", "report", overrides, config, inputs, {"report/index.html": folder / "index.html"})

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

    def _data_as(self, data: Mapping[str, Any], keys: Sequence[str], command: str, overrides: Sequence[str]) -> list[str]:
        """Overrides with which another command's `data` says the same as a training's where it would not by itself."""
        by_itself = self.configuration(command, command, overrides)["data"]
        different = [key for key in keys if key in data and by_itself.get(key) != data[key]]
        return [f"data.{key}={spelled(data[key])}" for key in different]


def assigned(values: Mapping[str, Any]) -> list[str]:
    """Overrides that give these keys these values."""
    return [f"{key}={spelled(value)}" for key, value in values.items()]


def split_overrides(split: Mapping[str, Any] | None) -> list[str]:
    """The overrides that choose a split of the group `split`; none where a training leaves it to the cache."""
    if split is None:
        return []
    return [
        f"split={split['kind']}",
        *assigned({f"split.{key}": value for key, value in split.items() if key not in ("kind", "renew")}),
    ]


def cache_of(training: Mapping[str, Any]) -> Path:
    """The folder of prepared data."""
    return Path(training["data"]["cache"])


def splits_of(training: Mapping[str, Any]) -> Path:
    """The file that says which cases train and which validate."""
    return cache_of(training) / "splits.json"


def best_of(run: Path) -> Path:
    """The checkpoint of a run that is used."""
    return run / BEST


def kept_split(training: Mapping[str, Any]) -> Split:
    """The split that was prepared."""
    return read_split(splits_of(training))


def check_one_cache(coarse: Mapping[str, Any], fine: Mapping[str, Any]) -> None:
    """Refuse two stages that would need caches of their own.

    Raises:
        KitsError: they ask for different data; the text names the key.
    """
    for key in SHARED:
        one, other = coarse["data"][key], fine["data"][key]
        if one != other:
            raise KitsError(
                f"data.{key}: the coarse stage asks for {spelled(one)}, the fine stage for {spelled(other)}; both read one cache,"
                " so give the key without the name of a stage"
            )
    if coarse["fold"] != fine["fold"]:
        raise KitsError(f"fold: {coarse['fold']} in the coarse stage, {fine['fold']} in the fine one; give fold=... for both")
