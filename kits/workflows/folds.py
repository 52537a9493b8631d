"""The plan of kits.crossval: every fold trained, every case predicted by a network that never saw it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from kits.config.schema.training import Coarse, Fine
from kits.config.schema.workflow import Crossval
from kits.core.errors import KitsError
from kits.metrics.tables import write_coverage
from kits.runs.folder import BEST
from kits.workflows.plan import StepBuilder, assigned, configured, data_asked, kept_split, later_wins, spelled, splits_of
from kits.workflows.step import Step, run_steps


def run_folds(options: Crossval, overrides: Sequence[str]) -> None:
    """Run the steps of `conf/crossval.yaml` that are not up to date, and print the table of all cases.

    Args:
        overrides: the command line; those of other keys than the options' are for each training.

    Raises:
        KitsError: something is wrong with the configuration of any step, told before the first runs; or a step fails.
    """
    plan = AllFolds(options, overrides)
    ran = run_steps(plan.steps(), options, "kits.crossval")
    if plan.stage == "coarse":
        table = write_coverage(plan.boxes, options.bootstrap)
    else:
        table = (plan.evaluation / "table.txt").read_text(encoding="utf-8")
    if plan.stage == "coarse" or "evaluate" not in ran:
        print(f"\n{table}")
    print(plan.advice())


class AllFolds(StepBuilder):
    """The steps of one stage over all folds.

    Attributes:
        first: the options of the first fold's training.
        stage: coarse or fine.
        coarse: the folder of the coarse folds, which the fine stage is predicted with.
    """

    def __init__(self, options: Crossval, overrides: Sequence[str]) -> None:
        super().__init__(options, overrides)
        given = self.overrides["train"]
        if any(override.partition("=")[0].lstrip("+") == "fold" for override in given):
            raise KitsError("fold: every fold is trained here; leave it out, or use kits.train fold=... for one")
        self.coarse = Path(options.coarse or self.output)
        # The cache of the coarse folds, so that both stages hold out the same cases.
        self.given = ["split=folds", *assigned({"data.cache": self.coarse / "cache"}), *given]
        asked = data_asked("train", (*self.given, "fold=0"))
        if asked["split"]["kind"] != "folds":
            raise KitsError(f"split={asked['split']['kind']}: has no folds; leave it out, or take split=folds")
        self.coarse_boxes = self.coarse / "boxes" / "boxes.json"
        self.given += assigned({"data.boxes": self.coarse_boxes}) if asked["roi"] == "oof" else []
        self.first: Coarse | Fine = configured("train", "train", tuple(later_wins([*self.given, "fold=0"])))
        self.stage = self.first.stage
        self.preparing(self.first)
        if self.stage == "fine":  # a mistake in their keys is told before anything runs
            self._predict(0, [])
            self._evaluate([])

    def steps(self) -> Iterator[Step]:
        """Make the steps in their order, each when those before it are done.

        Raises:
            KitsError: the fine stage is asked for before the coarse one.
        """
        yield self.preparing(self.first)
        split = kept_split(self.first)
        folds = range(len(split.parts))
        coarse = [self.coarse / f"coarse{fold}" for fold in folds]
        if self.stage == "fine":
            needed = [*(run / BEST for run in coarse), *([self.coarse_boxes] if self.first.data.boxes else [])]
            if missing := [path for path in needed if not path.is_file()]:
                raise KitsError(
                    f"{missing[0]}: missing; the fine stage needs the coarse folds: run kits.crossval stage=coarse"
                    f" output={self.coarse} first, or give coarse=DIR where they are"
                )
        for fold in folds:
            yield self.training(f"{self.stage}{fold}", [*self.given, f"fold={fold}"])
        if self.stage == "coarse":
            yield self.boxing(self.first, coarse)
            return
        for fold in folds:
            yield self._predict(fold, split.subset("validation", fold))
        yield self._evaluate([f"predict{fold}" for fold in folds])

    def _predict(self, fold: int, cases: Sequence[str]) -> Step:
        """Run both stages over the cases of a fold, with networks that were not trained on them."""
        networks = {"coarse": self.coarse / f"coarse{fold}" / BEST, "fine": self.output / f"fine{fold}" / BEST}
        split = splits_of(self.first)
        subset = {"split_file": split, "subset": "validation", "fold": fold}
        arguments = {**networks, "input": self.first.data.root, "output": self.predictions, **subset}
        return self.predicting(f"predict{fold}", arguments, [self.predictions / f"{case}.nii.gz" for case in cases], split)

    def _evaluate(self, after: Sequence[str]) -> Step:
        """Score all cases."""
        given = {"truth": self.first.data.root, "split_file": splits_of(self.first), "subset": "all"}
        return self.evaluating(self.first, given, after)

    def advice(self) -> str:
        """Say what to do with the result."""
        if self.stage == "coarse":
            return f"ROIs of every case, for data.roi=oof data.boxes={self.boxes}"
        folds = range(len(kept_split(self.first).parts))
        coarse = spelled([self.coarse / f"coarse{fold}" / BEST for fold in folds])
        fine = spelled([self.output / f"fine{fold}" / BEST for fold in folds])
        command = shlex.join(["python", "-m", "kits.predict", f"coarse={coarse}", f"fine={fine}"])
        return f"scores: {self.evaluation}\nall folds together on other scans: {command} input=... output=..."
