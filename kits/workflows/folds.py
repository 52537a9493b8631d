"""The plan of kits.crossval: one stage trained on every fold, and every case predicted by the network that never saw it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kits.config import require
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.data.splits import Split
from kits.workflows.building import Builder, Composer, assigned, best_of, kept_split, splits_of
from kits.workflows.command_line import spelled
from kits.workflows.running import Runner
from kits.workflows.step import Step


def run_folds(config: Mapping[str, Any], compose: Composer, check: Composer) -> None:
    """Run the steps of `conf/crossval.yaml` that are not up to date, and print the table of all cases.

    Args:
        compose: the configuration of a command under overrides.
        check: as `compose`, and refuses what the command would refuse.

    Raises:
        KitsError: something is wrong with the configuration of any step, told before the first runs; or a step fails.
    """
    output = Path(require(config["output"], "output", "add output=DIR"))
    plan = Folds(config, Builder(output, config["overrides"], compose, check))
    with sole_user(output, lock=output / "steps" / ".lock", key="output", work="kits.crossval"):
        runner = Runner(output, config["overwrite"])
        ran = [step.name for step in plan.steps() if runner.run(step)]
        if plan.stage == "coarse":
            from kits.workflows.coverage import write_coverage

            table = write_coverage(plan.builder.boxes, config["bootstrap"])
        else:
            table = (plan.builder.evaluation / "table.txt").read_text(encoding="utf-8")
    if plan.stage == "coarse" or "evaluate" not in ran:
        print(f"\n{table}")
    print(plan.advice())


class Folds:
    """The steps of one stage over all folds.

    Attributes:
        training: the configuration of the first fold's training.
        stage: coarse or fine.
        coarse: the folder of the coarse folds, which the fine stage is predicted with.
        boxes: whether the fine stage is trained on the out-of-fold ROIs of that folder.
    """

    def __init__(self, config: Mapping[str, Any], builder: Builder) -> None:
        self.builder = builder
        given = builder.overrides["train"]
        if any(override.partition("=")[0].lstrip("+") == "fold" for override in given):
            raise KitsError("fold: every fold is trained here; leave it out, or use kits.train fold=... for one")
        folder = Path(config["coarse"] or builder.output)
        cache = folder / "cache"  # of the coarse folds, so that both stages hold out the same cases
        arguments = ["split=folds", *assigned({"data.cache": cache}), *given]
        self.training = builder.configuration("train", "train", [*arguments, "fold=0"])
        self.stage, self.coarse = str(self.training["stage"]), folder
        self.boxes = self.stage == "fine" and self.training["data"]["roi"] == "oof"
        split = self.training["data"]["split"]
        if split["kind"] != "folds":
            raise KitsError(f"split={split['kind']}: has no folds; leave it out, or take split=folds")
        self.arguments = [*arguments, *(assigned({"data.boxes": folder / "boxes" / "boxes.json"}) if self.boxes else [])]
        builder.check_training("train", [*self.arguments, "fold=0"], boxes=self.boxes)
        builder.preparing(self.training)
        if self.stage == "fine":
            self.predict_step(0, [])
            self.evaluate_step()

    def steps(self) -> Iterator[Step]:
        """The steps in their order, each made when those before it are done.

        Raises:
            KitsError: the fine stage is asked for before the coarse one.
        """
        builder = self.builder
        yield builder.preparing(self.training)
        split = kept_split(self.training)
        folds = range(len(split.parts))
        if self.stage == "fine":
            self.check_coarse(split)
        for fold in folds:
            yield builder.training(f"{self.stage}{fold}", [*self.arguments, f"fold={fold}"])
        if self.stage == "coarse":
            yield builder.boxing(self.training, self.runs(split))
            return
        for fold in folds:
            yield self.predict_step(fold, split.subset("validation", fold))
        yield self.evaluate_step()

    def runs(self, split: Split) -> list[Path]:
        """The coarse run folder of each fold."""
        return [self.coarse / f"coarse{fold}" for fold in range(len(split.parts))]

    def check_coarse(self, split: Split) -> None:
        """Refuse to train the fine stage where it could not be predicted with.

        Raises:
            KitsError: a coarse fold is missing, or the ROIs of all cases where they are asked for.
        """
        needed = [best_of(run) for run in self.runs(split)]
        needed += [self.coarse / "boxes" / "boxes.json"] if self.boxes else []
        missing = [path for path in needed if not path.is_file()]
        if missing:
            raise KitsError(
                f"{missing[0]}: missing; the fine stage needs the coarse folds: run kits.crossval stage=coarse"
                f" output={self.coarse} first, or give coarse=DIR where they are"
            )

    def predict_step(self, fold: int, cases: Sequence[str]) -> Step:
        """Both stages over the cases of a fold, with networks that were not trained on them."""
        builder = self.builder
        networks = {"coarse": best_of(self.coarse / f"coarse{fold}"), "fine": best_of(builder.output / f"fine{fold}")}
        subset = {"split": splits_of(self.training), "subset": "validation", "fold": fold}
        arguments = {**networks, "input": self.training["data"]["root"], "output": builder.predictions, **subset}
        files = {f"predictions/{case}.nii.gz": builder.predictions / f"{case}.nii.gz" for case in cases}
        return builder.predicting(f"predict{fold}", arguments, files)

    def evaluate_step(self) -> Step:
        """The scores of all cases."""
        subset = {"split": splits_of(self.training), "subset": "all"}
        return self.builder.evaluating(self.training, {"truth": self.training["data"]["root"], **subset})

    def advice(self) -> str:
        """What to do with the result."""
        runs = self.runs(kept_split(self.training))
        if self.stage == "coarse":
            return f"ROIs of every case, for data.roi=oof data.boxes={self.builder.boxes}"
        coarse = spelled([best_of(run) for run in runs])
        fine = spelled([best_of(self.builder.output / run.name.replace("coarse", "fine")) for run in runs])
        command = shlex.join(["python", "-m", "kits.predict", f"coarse={coarse}", f"fine={fine}"])
        return f"scores: {self.builder.evaluation}\nall folds together on other scans: {command} input=... output=..."
