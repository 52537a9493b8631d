"""Check that `last.ckpt` holds all that its run goes on with.

Lightning goes on with whatever it finds: without the state of its loops it would begin the training again, without that of a
callback it would forget the best score.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from inspect import signature
from numbers import Real
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kits.config import one_line
from kits.core.errors import KitsError
from kits.core.plain_files import misfit
from kits.runs.folder import BEST
from kits.runs.random_state import unusable

# Where a checkpoint holds the state that Lightning does not know of, and that of the data module: the place within an epoch.
STATE, PLACE = "kits_run", "KitsDataModule"
COUNTS = {"ready": int, "completed": int}
PROGRESS = {"total": COUNTS, "current": COUNTS}
OPTIMIZER = "epoch_loop.automatic_optimization.optim_progress"
BATCHES = "epoch_loop.batch_progress"
SAVED = {
    STATE: {"rows": int, "seconds": float, "ended": Any, "data_hash": str, "random": dict},
    PLACE: {"epoch": int, "batches": int, "ranks": int},
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "loops": {"fit_loop": {"epoch_progress": dict, BATCHES: dict, OPTIMIZER: {"optimizer": {"step": PROGRESS}}}},
    "callbacks": {str: dict},
    "optimizer_states": ({"state": {int: {str: Any}}, "param_groups": [{"params": [int]}]},),
    "lr_schedulers": ({"last_epoch": int},),
}
# What a schedule cannot do without; of a plateau the last three.
MEMORY = ("last_epoch", "base_lrs", "lr_lambdas", "best", "num_bad_epochs", "cooldown_counter")
FOUR = (int, int, int, int)
# By callback, what a fresh one does not show of its state.
CALLBACKS: dict[str, Any] = {
    "Best": {
        "best_model_score": Tensor | None,
        "current_score": Tensor | None,
        "kth_value": Tensor,
        "best_k_models": {str: Tensor},
        "dirpath": str | None,
        "best_model_path": str,
        "kth_best_model_path": str,
        "last_model_path": str,
    },
    "EarlyStopping": {"wait_count": int, "stopped_epoch": int, "best_score": Tensor, "patience": int},
    "Timer": {},
    "CaseMonitor": {"score": float | None, "step": int, "scores": {str: {str: float}}, "confusion": [FOUR]},
}


def check_saved(path: Path, content: dict[str, Any]) -> None:
    """Hold the content of a `last.ckpt` against what every training saves.

    Raises:
        KitsError: something lacks, or what it says of its progress cannot be.
    """
    if STATE not in content:
        raise KitsError(f"{path}: holds no state to go on from; give resume= a folder whose {path.name} kits.train wrote")
    wrong = misfit(content, SAVED) or unusable(content[STATE]["random"]) or impossible(content)
    if wrong:
        raise damaged(path, wrong)


def damaged(path: Path, wrong: str) -> KitsError:
    """Return the refusal of a checkpoint that cannot be gone on from."""
    return KitsError(f"{path}: damaged or edited ({wrong}); begin again with overwrite=true, or in another run_dir=DIR")


def impossible(content: dict[str, Any]) -> str | None:
    """Find what the counters of a checkpoint say that no training comes to; None where nothing is."""
    state, place, fit = content[STATE], content[PLACE], content["loops"]["fit_loop"]
    for name, counts in counters(fit):
        values = [counts[key] for key in ("completed", "processed", "started", "ready") if key in counts]
        if not all(type(value) is int for value in values) or values != sorted(values) or values[0] < max(0, values[-1] - 1):
            return f"its loops.fit_loop.{name}"
    if place["ranks"] < 1 or min(place["epoch"], place["batches"], state["rows"], state["seconds"]) < 0:
        return "its progress is below 0"
    epochs, batches = (fit[name].get("current") for name in ("epoch_progress", BATCHES))
    whole = {"ready": int, "started": int, "processed": int, "completed": int}
    if wrong := misfit([epochs, batches], (whole, whole), "its loops"):
        return wrong
    within = epochs["ready"] > epochs["processed"]
    if (epochs["processed"], within) != (place["epoch"], place["batches"] > 0):
        return "its loops are in another epoch than its state"
    if within and batches["completed"] != place["batches"]:
        return "its loops are at another batch than its state"
    if fit[OPTIMIZER]["optimizer"]["step"]["total"]["completed"] != content["global_step"]:
        return "its loops are at another step than its weights"
    return None


def counters(node: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every set of counters in the state of a loop, with its place."""
    for key, value in node.items():
        if isinstance(value, dict):
            if "ready" in value and "completed" in value:
                yield f"{prefix}{key}", value
            else:
                yield from counters(value, f"{prefix}{key}.")


def check_fits(path: Path, content: dict[str, Any], module: Any, trainer: pl.Trainer) -> None:
    """Hold the content of a `last.ckpt` against the training that is to go on with it.

    Before anything of that begins.

    Args:
        module: a `kits.training.modules.StageModule`.

    Raises:
        KitsError: it is that of another network, optimizer or callbacks, or parts of theirs lack.
    """
    optimizer = module.build_optimizer()  # to be tried on: the training builds its own
    scheduler = module.build_schedule(optimizer, 1)["scheduler"]
    wrong = (
        misfit(content["loops"]["fit_loop"], like(trainer.fit_loop.state_dict()), "its loops.fit_loop")
        or misfit_weights(content["state_dict"], module)
        or misfit_schedule(content["lr_schedulers"][0], scheduler)
        or misfit_optimizer(content["optimizer_states"][0], optimizer)
        or misfit_callbacks(content["callbacks"], trainer)
    )
    plugin = trainer.precision_plugin
    if scaled := plugin.state_dict():
        wrong = wrong or misfit(content, {type(plugin).__qualname__: like(scaled)})
    if wrong:
        raise damaged(path, wrong)


def like(example: Any) -> Any:
    """Return the form of a value that has the parts of an example, of the same types."""
    if isinstance(example, dict):
        return {key: like(value) for key, value in example.items()}
    if isinstance(example, list | tuple):
        return tuple(like(value) for value in example)
    if example is None or isinstance(example, Tensor):
        return Any if example is None else Tensor
    if isinstance(example, float) and not math.isfinite(example):  # the best score before there is any
        return Real
    return int | float if type(example) is int else type(example)


def misfit_weights(weights: dict[str, Tensor], module: nn.Module) -> str | None:
    """Find what of these weights is not of this module."""
    own = module.state_dict()
    if weights.keys() != own.keys():
        return f"its state_dict has other names, such as {min(weights.keys() ^ own.keys())[:60]}"
    for name, tensor in weights.items():
        if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype) or not torch.isfinite(tensor).all():
            return f"its weights {name[:60]}"
    return None


def misfit_schedule(state: dict[str, Any], scheduler: LRScheduler) -> str | None:
    """Find what this schedule could not go on with; releases of torch differ in what else they keep."""
    own = scheduler.state_dict()
    form = {key: like(value) for key, value in own.items() if key in state or key in MEMORY}
    if method := next((key for key in state if callable(getattr(type(scheduler), key, None))), None):
        return f"its schedule has {method}"
    return misfit(state, form, "its schedule")


def misfit_optimizer(state: dict[str, Any], optimizer: Optimizer) -> str | None:
    """Find what of a state this optimizer could not go on with."""
    groups = like(optimizer.state_dict()["param_groups"])
    options = {name: optimizer.defaults[name] for name in signature(type(optimizer)).parameters if name in optimizer.defaults}
    probe = nn.Parameter(torch.zeros(1))
    probe.grad = torch.ones(1)
    one = type(optimizer)([probe], **options)
    one.step()  # shows what it remembers of a parameter
    memory = like(dict(one.state[probe]))
    try:
        optimizer.load_state_dict(copy.deepcopy(state))
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        return f"its optimizer's state: {one_line(error)[:80]}"
    if wrong := misfit(optimizer.state_dict()["param_groups"], groups, "its optimizer's groups"):
        return wrong
    for parameter, kept in optimizer.state.items():
        if wrong := misfit(dict(kept), memory, "its optimizer's state"):
            return wrong
        for name, value in kept.items():
            if name not in memory or (isinstance(value, Tensor) and value.shape not in (parameter.shape, ())):
                return f"its optimizer's {str(name)[:40]}"
    return None


def misfit_callbacks(states: dict[str, dict[str, Any]], trainer: pl.Trainer) -> str | None:
    """Find what of the states the callbacks of this training could not go on with."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        fresh, key = callback.state_dict(), callback.state_key
        if not fresh or type(callback).__name__ not in CALLBACKS:  # the user's own, which may keep anything
            continue
        form = {**like(fresh), **CALLBACKS[type(callback).__name__]}
        if wrong := misfit(states, {key: form}, "its callbacks"):
            return wrong
        tensors = [value for value in states[key].values() if isinstance(value, Tensor)]
        names = {Path(states[key][name]).name for name in ("best_model_path", "kth_best_model_path") if name in form}
        names |= {Path(name).name for name in states[key].get("best_k_models", {})}
        if any(tensor.numel() != 1 for tensor in tensors) or not names <= {"", BEST}:
            return f"its callbacks.{key.partition('{')[0]}"
    return None
