"""The plan of kits.pipeline: prepare, train both stages, predict, evaluate, report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kits.config import choices_of, plain
from kits.config.schema.dataset import Folds
from kits.config.schema.training import Coarse, Fine
from kits.config.schema.workflow import Pipeline
from kits.core.errors import KitsError
from kits.runs.folder import BEST
from kits.workflows.plan import (
    PREPARED,
    StepBuilder,
    assigned,
    configured,
    data_asked,
    kept_split,
    later_wins,
    spelled,
    splits_of,
)
from kits.workflows.step import Step, run_steps

# What holds for both stages, because they read one cache.
SHARED = ("root", "cache", "split", *PREPARED)


def run_two_stages(options: Pipeline, overrides: Sequence[str]) -> None:
    """Run the steps of `conf/pipeline.yaml` that are not up to date.

    Args:
        overrides: the command line; those of other keys than the options' are for both trainings.

    Raises:
        KitsError: something is wrong with the configuration of any step, told before the first runs; or a step fails.
    """
    plan = TwoStages(options, overrides)
    ran = run_steps(plan.steps(), options, "kits.pipeline")
    table = plan.evaluation / "table.txt"
    if plan.truth is not None and "evaluate" not in ran:
        print(f"\n{table.read_text(encoding='utf-8')}")
    print(f"\n{'done' if ran else 'nothing had to run'}; scores: {table.parent}, pictures: {plan.output / 'report'}")


class TwoStages(StepBuilder):
    """The steps of both stages.

    Attributes:
        coarse, fine: the options of the trainings.
        from_boxes: whether the fine stage is trained on out-of-fold ROIs, so that every fold needs a coarse network.
        truth: the tree of label maps to score against, None where there is none.
    """

    def __init__(self, options: Pipeline, overrides: Sequence[str]) -> None:
        super().__init__(options, overrides)
        study, recipes = options.study, choices_of("experiment")
        offered = sorted({name.rpartition("/")[0] for name in recipes if name.endswith("/coarse")} - {""})
        offered = [name for name in offered if f"{name}/fine" in recipes]
        if study not in offered:
            what = "no folder in experiments/ with a coarse.yaml and a fine.yaml"
            raise KitsError(f"study={study}: {what}; take one of {', '.join(offered)}")
        if one := next((one for one in self.overrides["train"] if re.match(r"\+*(stage|experiment)=", one)), None):
            raise KitsError(f"{one}: the study has both stages; leave it out")
        common = [*assigned({"data.cache": self.output / "cache"}), *self.overrides["train"]]
        coarse, self.fine_given = (
            [f"experiment={study}/{stage}", *common, *self.overrides[stage]] for stage in ("coarse", "fine")
        )
        self.from_boxes = data_asked("fine", tuple(self.fine_given))["roi"] == "oof"
        if self.from_boxes:
            self.fine_given = later_wins([*self.fine_given, *assigned({"data.boxes": self.boxes})])
        self.coarse_given = [one for one in coarse if one.partition("=")[0].lstrip("+") not in ("data.roi", "data.boxes")]
        self.coarse: Coarse = configured("coarse", "train", tuple(self.coarse_given))
        self.fine: Fine = configured("fine", "train", tuple(self.fine_given))
        self._refuse_two_caches()
        self.fold = self.coarse.fold
        if self.from_boxes and (self.fold is None or not isinstance(self.coarse.data.split, Folds)):
            raise KitsError("data.roi=oof: ROIs that are out of fold need folds; add split=folds fold=0")
        self.input = None if options.input is None else Path(options.input)
        self.truth = None if options.truth is None else Path(options.truth)
        prepare = self.preparing(self.coarse)
        if self.input is None:
            self.truth = Path(prepare.config["data"]["root"])
        self._after_training([])  # a mistake in their keys is told before anything runs

    def steps(self) -> Iterator[Step]:
        """Make the steps in their order, each when those before it are done."""
        yield self.preparing(self.coarse)
        if self.from_boxes:
            folds = range(len(kept_split(self.coarse).parts))
            for fold in folds:
                yield self.training(f"coarse{fold}", [*self.coarse_given, f"fold={fold}"])
            yield self.boxing(self.coarse, [self.output / f"coarse{fold}" for fold in folds])
        else:
            yield self.training("coarse", self.coarse_given)
        yield self.training("fine", self.fine_given)
        yield from self._after_training([] if self.input else kept_split(self.coarse).subset("validation", self.fold))

    def _after_training(self, cases: Sequence[str]) -> list[Step]:
        """Predict, score and draw the validation cases, or all scans of `input`, which name no cases."""
        subset: dict[str, Any] = {}
        if self.input is None:
            subset = {"split_file": splits_of(self.coarse), "subset": "validation"}
            subset |= {} if self.fold is None else {"fold": self.fold}
        source = self.input or self.truth
        coarse = self.output / (f"coarse{self.fold}" if self.from_boxes else "coarse") / BEST
        arguments = {"coarse": coarse, "fine": self.output / "fine" / BEST, "input": source, "output": self.predictions}
        steps = [self.predicting("predict", arguments | subset, [self.predictions / "*.nii.gz"], subset.get("split"))]
        truth = {} if self.truth is None else {"truth": self.truth}
        if truth:
            steps.append(self.evaluating(self.coarse, truth | subset, ["predict"]))
        named = {"cases": list(cases)} if cases else {}
        return [*steps, self.reporting(self.coarse, {"image": source, **truth, **named}, ["predict"])]

    def _refuse_two_caches(self) -> None:
        for key in SHARED:
            one, other = (plain(getattr(stage.data, key)) for stage in (self.coarse, self.fine))
            if one != other:
                what = f"the coarse stage asks for {spelled(one)}, the fine stage for {spelled(other)}; both read one cache"
                raise KitsError(f"data.{key}: {what}, so give the key without the name of a stage")
        one, other = self.coarse.fold, self.fine.fold
        if one != other:
            raise KitsError(f"fold: {one} in the coarse stage, {other} in the fine one; give fold=... for both")
