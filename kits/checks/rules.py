"""What a value may be, by key. No default stands here: those are in conf/."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What is accepted, and the same in words. `choices` are the values that tab completion offers."""

    meaning: str
    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()

    def __or__(self, other: Rule) -> Rule:
        return Rule(
            f"{self.meaning}, or {other.meaning}",
            lambda value: self.accepts(value) or other.accepts(value),
            (*self.choices, *other.choices),
        )


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float; YAML's `true` is no 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether it is an int."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int) -> Rule:
    """A whole number of at least `least`."""
    return Rule(f"a whole number of {least} or more", lambda value: is_whole(value) and value >= least)


def number(
    *, least: float | None = None, above: float | None = None, below: float | None = None, most: float | None = None
) -> Rule:
    """A number within these bounds."""
    bounds = {"of at least": least, "above": above, "below": below, "of at most": most}
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    def accepts(value: Any) -> bool:
        return (
            is_number(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (below is None or value < below)
            and (most is None or value <= most)
        )

    return Rule(f"a number {words}".strip(), accepts)


def one_of(*values: Any) -> Rule:
    """One of these."""
    names = tuple(text(value) for value in values)
    # Not `in`: true is no 1.
    return Rule(f"one of {', '.join(names)}", lambda given: any(given == v and type(given) is type(v) for v in values), names)


def listed(entry: Rule, count: int | None = None, *, at_least: int = 0) -> Rule:
    """A list of `count` entries, or of any number from `at_least`."""
    size = f"{count} times " if count else ""

    def accepts(value: Any) -> bool:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return (len(value) == count if count else len(value) >= at_least) and all(map(entry.accepts, value))

    return Rule(f"[{size}{entry.meaning}]", accepts)


def text(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(text, value))}]"
    return str(value)


ANYTHING = Rule("anything", lambda value: True)
NOTHING = one_of(None)
SWITCH = one_of(True, False)
TEXT = Rule("a text", lambda value: isinstance(value, str) and value != "")
NUMBER = number()
POSITIVE = number(above=0)
LENGTH = number(least=0)
SHARE = number(least=0, most=1)
COUNT = whole(1)
CASES = listed(TEXT)
SCALES = listed(whole(0), at_least=1)
PER_LEVEL = listed(listed(COUNT, 3), at_least=1)
WINDOW = Rule("two ascending numbers [low, high]", lambda value: listed(NUMBER, 2).accepts(value) and value[0] < value[1])
# Lightning's: a whole number of batches, or a share of them.
BATCHES = whole(0) | number(least=0, most=1)

NETWORKS = ("unet3d", "finenet")
OPERATORS = ("p3d", "conv3d", "zconv", "tsm", "acs", "none")
FUSIONS = ("concat", "gate", "mean")
NORMS = ("none", "group")
INPUTS = ("replicate", "neighbors", "windows")
PLANES = ("axial", "coronal", "sagittal")
OVER = ("classes", "foreground", "both")
TRAININGS = ("parallel", "staged")
ROIS = ("gt_jitter", "oof")
# Lightning knows more; networks, losses and windows here compute in float32 or in autocast.
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")

RULES: dict[str, Rule] = {
    "seed": whole(0),
    "fold": whole(0) | NOTHING,
    "overwrite": SWITCH,
    "workers": COUNT,
    "subset": one_of("train", "validation", "all"),
    "backend": one_of("auto", "torch", "onnx"),
    "precision": one_of("auto", "bf16", 32, 16),
    "training": one_of(*TRAININGS),
    "parallel_weight": LENGTH,
    "staged_shares": listed(number(least=0, below=1), 2),
    "data.root": TEXT | NOTHING,
    "data.exclude": CASES,
    "data.unlabeled_from": whole(0) | NOTHING,
    "data.workers": COUNT,
    "data.loader_workers": whole(0),
    "data.window_hu": WINDOW,
    "data.coarse_size": COUNT,
    "data.coarse_z_mm": POSITIVE | NOTHING,
    "data.roi_rule.count": COUNT,
    "data.roi_rule.min_voxels": whole(0),
    "data.roi": one_of(*ROIS),
    "data.boxes": TEXT | NOTHING,
    "data.overfit": TEXT | NOTHING,
    "split.seed": whole(0),
    "split.k": whole(2),
    "split.validation_cases": COUNT,
    "split.validation_fraction": number(above=0, below=1),
    "sampling.patch": listed(COUNT, 3),
    "sampling.batch_size": COUNT,
    "sampling.patches_per_epoch": COUNT,
    **dict.fromkeys((f"sampling.{name}" for name in ("foreground", "tumor", "kidney", "around")), SHARE),
    "sampling.jitter_mm": LENGTH,
    "sampling.around_mm": LENGTH,
    "inference.window": COUNT,
    "inference.overlap": number(least=0, below=1),
    "inference.threshold": number(above=0, below=1),
    "roi.count": COUNT,
    "roi.min_voxels": whole(0),
    "roi.min_ml": LENGTH | NOTHING,
    "roi.margin_mm": LENGTH,
    "roi.grow_mm": LENGTH,
    "roi.grow_rounds": whole(0),
    "postprocess.components": COUNT | NOTHING,
    "postprocess.tumor_distance_mm": LENGTH | NOTHING,
    "postprocess.min_ml": LENGTH | NOTHING,
    "postprocess.fill_holes": SWITCH,
    "model.name": one_of(*NETWORKS),
    "model.classes": COUNT,
    "model.width": COUNT | NOTHING,
    "model.depth": COUNT | NOTHING,
    "model.widths": listed(COUNT, at_least=1) | NOTHING,
    "model.spacing": listed(POSITIVE, 3) | NOTHING,
    "model.stem": COUNT | NOTHING,
    "model.strides": PER_LEVEL | NOTHING,
    "model.kernels": PER_LEVEL | NOTHING,
    "model.norm": one_of(*NORMS),
    "model.deep_supervision": whole(0),
    "model.input": one_of(*INPUTS),
    "model.window_hu": WINDOW | NOTHING,
    "model.windows_hu": listed(WINDOW),
    "model.data_window_hu": WINDOW,
    "model.plane": one_of(*PLANES),
    "model.out_indices": SCALES,
    "model.operator": one_of(*OPERATORS),
    "model.gate": SWITCH,
    "model.fusion": one_of(*FUSIONS),
    "model.stem_width": COUNT,
    "model.freeze_statistics": SWITCH,
    "model.freeze_stages": whole(0) | one_of("all"),
    "model.slices_at_once": COUNT | NOTHING,
    "model.checkpointing": SWITCH,
    "loss.bias": number(least=1),
    "loss.smooth": LENGTH,
    "loss.alpha": LENGTH,
    "loss.beta": LENGTH,
    "loss.gamma": POSITIVE,
    "loss.dice_weight": LENGTH,
    "loss.ce_weight": LENGTH,
    "loss.per_sample": SWITCH,
    "loss.class_weights": listed(LENGTH, at_least=1) | NOTHING,
    "loss.over": one_of(*OVER),
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": LENGTH,
    "optimizer.momentum": number(least=0, below=1),
    "optimizer.nesterov": SWITCH,
    "optimizer.encoder_factor": LENGTH,
    "optimizer.encoder_decay": POSITIVE,
    "scheduler.warmup": number(least=0, below=1),
    "scheduler.final": SHARE,
    "scheduler.power": POSITIVE,
    "scheduler.factor": number(above=0, below=1),
    "scheduler.patience": whole(0),
    "scheduler.min_lr": LENGTH,
    "callbacks.early_stopping.patience": whole(0),
    "trainer.max_epochs": COUNT,
    "trainer.accelerator": one_of(*ACCELERATORS),
    "trainer.precision": one_of(*PRECISIONS),
    "trainer.gradient_clip_val": LENGTH | NOTHING,
    "trainer.log_every_n_steps": COUNT,
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.limit_train_batches": BATCHES,
    "trainer.limit_val_batches": BATCHES,
    "trainer.strategy": one_of("auto", "ddp"),
    "trainer.launcher": one_of("srun") | NOTHING,
    "trainer.num_nodes": COUNT,
    "trainer.sync_batchnorm": SWITCH,
    "trainer.devices": COUNT | one_of("auto") | listed(whole(0), at_least=1),
    "logger.entity": TEXT | NOTHING,
    "logger.mode": one_of("online", "offline", "disabled") | NOTHING,
}


def derived(default: Any) -> Rule:
    """For a key without a rule: a value of the kind that its default in conf/ has. An open one (null, `???`) takes anything."""
    if default is None or default == "???":
        return ANYTHING
    if isinstance(default, bool):
        return SWITCH
    if is_number(default):
        return NUMBER
    if isinstance(default, str):
        return TEXT
    return listed(ANYTHING) if isinstance(default, list) else Rule("keys with values", lambda value: isinstance(value, dict))
