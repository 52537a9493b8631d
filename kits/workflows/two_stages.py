"""The plan of kits.pipeline: prepare, train both stages, predict, evaluate, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kits.config import require
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.workflows.building import Builder, Composer, assigned, best_of, check_one_cache, kept_split, splits_of
from kits.workflows.running import Runner
from kits.workflows.step import Step


def run_two_stages(config: Mapping[str, Any], recipes: list[str], compose: Composer, check: Composer) -> None:
    """Run the steps of `conf/pipeline.yaml` that are not up to date.

    Args:
        recipes: the experiments that there are, as `demo/coarse`.
        compose: the configuration of a command under overrides.
        check: as `compose`, and refuses what the command would refuse.

    Raises:
        KitsError: something is wrong with the configuration of any step, told before the first runs; or a step fails.
    """
    output = Path(require(config["output"], "output", "add output=DIR"))
    plan = TwoStages(config, recipes, Builder(output, config["overrides"], compose, check))
    with sole_user(output, lock=output / "steps" / ".lock", key="output", work="kits.pipeline"):
        runner = Runner(output, config["overwrite"])
        ran = {step.name for step in plan.steps() if runner.run(step)}
    table = plan.builder.evaluation / "table.txt"
    if plan.truth is not None and "evaluate" not in ran:
        print(f"\n{table.read_text(encoding='utf-8')}")
    print(f"\n{'nothing had to run' if not ran else 'done'}; scores: {table.parent}, pictures: {output / 'report'}")


class TwoStages:
    """The steps of both stages.

    Attributes:
        coarse, fine: the configurations of the trainings.
        boxes: whether the fine stage is trained on out-of-fold ROIs, so that every fold needs a coarse network.
        truth: the tree of label maps to score against, None where there is none.
    """

    def __init__(self, config: Mapping[str, Any], recipes: list[str], builder: Builder) -> None:
        experiment = config["experiment"]["source"]
        offered = sorted({name.rpartition("/")[0] for name in recipes if name.endswith("/coarse")} - {""})
        offered = [name for name in offered if f"{name}/fine" in recipes]
        require(experiment, "experiment", f"add experiment=... with one of {', '.join(offered)}")
        if experiment not in offered:
            raise KitsError(
                f"experiment={experiment}: no folder in experiments/ with a coarse.yaml and a fine.yaml;"
                f" take one of {', '.join(offered)}"
            )
        self.builder = builder
        common = [*assigned({"data.cache": builder.output / "cache"}), *builder.overrides["train"]]
        arguments = {
            stage: [f"experiment={experiment}/{stage}", *common, *builder.overrides[stage]] for stage in ("coarse", "fine")
        }
        self.fine_arguments = arguments["fine"]
        self.fine = builder.configuration("fine", "train", self.fine_arguments)
        self.boxes = self.fine["data"]["roi"] == "oof"
        self.coarse_arguments = without(arguments["coarse"], "data.roi", "data.boxes")
        self.coarse = builder.configuration("coarse", "train", self.coarse_arguments)
        builder.check_training("coarse", self.coarse_arguments, boxes=False)
        builder.check_training("fine", self.fine_arguments, boxes=self.boxes)
        check_one_cache(self.coarse, self.fine)
        self.fold = self.coarse["fold"]
        if self.boxes and (self.fold is None or (self.coarse["data"]["split"] or {}).get("kind") != "folds"):
            raise KitsError("data.roi=oof: ROIs that are out of fold need folds; add split=folds fold=0")
        self.input = Path(config["input"]) if config["input"] is not None else None
        self.truth = Path(config["truth"]) if config["truth"] is not None else None
        if self.input is None:
            self.truth = Path(builder.preparing(self.coarse).config["data"]["root"])
        self.check_others()

    def check_others(self) -> None:
        """Compose the steps after the trainings once, so that a mistake in their keys is told before anything runs."""
        self.builder.preparing(self.coarse)
        self.predict_step()
        if self.truth is not None:
            self.evaluate_step()
        self.report_step([])

    def steps(self) -> Iterator[Step]:
        """The steps in their order, each made when those before it are done."""
        builder = self.builder
        yield builder.preparing(self.coarse)
        if self.boxes:
            folds = range(len(kept_split(self.coarse).parts))
            for fold in folds:
                yield builder.training(f"coarse{fold}", [*self.coarse_arguments, f"fold={fold}"])
            yield builder.boxing(self.coarse, [builder.output / f"coarse{fold}" for fold in folds])
            yield builder.training("fine", [*self.fine_arguments, *assigned({"data.boxes": builder.boxes})])
        else:
            yield builder.training("coarse", self.coarse_arguments)
            yield builder.training("fine", self.fine_arguments)
        yield self.predict_step()
        if self.truth is not None:
            yield self.evaluate_step()
        yield self.report_step([] if self.input else kept_split(self.coarse).subset("validation", self.fold))

    @property
    def subset(self) -> dict[str, Any]:
        """The arguments that choose the validation cases; none where other scans are predicted."""
        if self.input is not None:
            return {}
        fold = {} if self.fold is None else {"fold": self.fold}
        return {"split": splits_of(self.coarse), "subset": "validation", **fold}

    def predict_step(self) -> Step:
        """Both stages over the validation cases, or over the scans of `input`."""
        builder = self.builder
        coarse = builder.output / (f"coarse{self.fold}" if self.boxes else "coarse")
        arguments = {"coarse": best_of(coarse), "fine": best_of(builder.output / "fine"), "input": self.input or self.truth}
        arguments |= {"output": builder.predictions, **self.subset}
        return builder.predicting("predict", arguments, {"predictions": builder.predictions})

    def evaluate_step(self) -> Step:
        """The scores of those cases."""
        return self.builder.evaluating(self.coarse, {"truth": self.truth, **self.subset})

    def report_step(self, cases: list[str]) -> Step:
        """Their pictures; every scan's of `input` where no cases are named."""
        named = {"cases": cases} if cases else {}
        truth = {"truth": self.truth} if self.truth is not None else {}
        return self.builder.reporting(self.coarse, {"image": self.input or self.truth, **truth, **named})


def without(overrides: list[str], *keys: str) -> list[str]:
    """The overrides of other keys."""
    return [override for override in overrides if override.partition("=")[0].lstrip("+") not in keys]
