"""What does not go together in a training: told by key, before the network exists. The values themselves have been looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kits.checks.networks import check_finenet, check_unet3d, coarse_multiple, fine_multiple
from kits.checks.rules import text
from kits.config import check_classes
from kits.errors import KitsError

NETWORK = {"coarse": "unet3d", "fine": "finenet"}


def check_training(config: dict[str, Any]) -> None:
    """Raise KitsError where the configuration of kits.train cannot work, whatever the data are."""
    stage, model = config["stage"], config["model"]
    if model["name"] != NETWORK[stage]:
        raise KitsError(f"model={model['name']}: stage={stage} trains {NETWORK[stage]}; leave model out")
    check_fold(config)
    check_data(config)
    check_sampling(config["sampling"])
    check_class_weights(config)
    check_schedule(config)
    check_devices(config["trainer"])
    if stage == "coarse":
        check_unet3d(model)
        check_coarse_patch(config)
    else:
        check_finenet(model)
        check_fine_patch(config)
        check_staged(config)
    # Last: what is wrong with the configuration itself is told on a machine without the data too.
    cache = config["data"]["cache"]
    if not (Path(cache) / "index.json").is_file():
        raise KitsError(f"data.cache={cache}: not prepared; run python -m kits.prepare with the same data.cache")


def check_fold(config: dict[str, Any]) -> None:
    """A fold exactly where the split that was asked for has some; without the group `split` the cache decides later."""
    split, fold = config["data"]["split"], config["fold"]
    if split is None:
        return
    if split["kind"] != "folds":
        if fold is not None:
            raise KitsError(f"fold={fold}: split={split['kind']} has no folds; leave fold out, or take split=folds")
    elif fold is None:
        raise KitsError(f"fold: no value given; split=folds needs one of 0 to {split['k'] - 1}")
    elif fold >= split["k"]:
        raise KitsError(f"fold={fold}: split.k={split['k']} folds are 0 to {split['k'] - 1}")


def check_data(config: dict[str, Any]) -> None:
    """Classes that the network has, and boxes where they are read."""
    data = config["data"]
    if config["stage"] == "coarse":
        check_classes(data["classes"], len(data["classes"]))
        if config["model"]["classes"] != 1:
            raise KitsError(
                f"model.classes={config['model']['classes']}: the coarse network has one, kidney and tumor together; give 1"
            )
    else:
        check_classes(data["classes"], config["model"]["classes"])
    if data["roi"] == "oof" and config["stage"] == "coarse":
        raise KitsError("data.roi=oof: the coarse stage reads no ROIs; leave it out")
    if data["roi"] == "oof" and data["boxes"] is None:
        raise KitsError("data.boxes: no value given; data.roi=oof needs data.boxes=DIR/boxes.json, from kits.predict split=oof")
    if data["roi"] != "oof" and data["boxes"] is not None:
        raise KitsError(f"data.boxes={data['boxes']}: is read with data.roi=oof only; add that, or leave it out")
    if data["roi"] == "oof" and not Path(data["boxes"]).is_file():
        raise KitsError(f"data.boxes={data['boxes']}: no such file; kits.predict split=oof writes boxes.json")


def check_sampling(sampling: dict[str, Any]) -> None:
    """Shares that leave room for one another, and at least one batch an epoch."""
    if "tumor" in sampling and sampling["tumor"] + sampling["kidney"] > 1:
        raise KitsError(
            f"sampling.tumor={sampling['tumor']}, sampling.kidney={sampling['kidney']}:"
            " together more than all patches; give shares that add up to 1 at most"
        )
    if sampling["patches_per_epoch"] < sampling["batch_size"]:
        raise KitsError(
            f"sampling.patches_per_epoch={sampling['patches_per_epoch']}: is no whole batch;"
            f" give at least sampling.batch_size={sampling['batch_size']}"
        )


def check_class_weights(config: dict[str, Any]) -> None:
    """One weight for each region that the loss scores."""
    weights, over = config["loss"]["class_weights"], config["loss"]["over"]
    if weights is None:
        return
    foreground = max(1, config["model"]["classes"] - 1)
    regions = 1 if config["stage"] == "coarse" else {"classes": foreground, "foreground": 1, "both": foreground + 1}[over]
    if len(weights) != regions or not sum(weights):
        names = "kidney and tumor together" if regions == 1 else f"loss.over={over}"
        raise KitsError(f"loss.class_weights={text(weights)}: give {regions} ({names}), not all of them 0")


def check_schedule(config: dict[str, Any]) -> None:
    """A plateau is waited for before the training is stopped at it."""
    scheduler, stopping = config["scheduler"], config["callbacks"]["early_stopping"]
    if scheduler["name"] == "plateau" and scheduler["patience"] >= stopping["patience"]:
        raise KitsError(
            f"scheduler.patience={scheduler['patience']}: the training stops first, callbacks.early_stopping.patience="
            f"{stopping['patience']}; give a smaller one, or a larger callbacks.early_stopping.patience"
        )


def check_devices(trainer: dict[str, Any]) -> None:
    """A process for each of several devices, and statistics over all of them only where torch has that."""
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    count = len(devices) if isinstance(devices, list) else devices
    if trainer["strategy"] == "auto" and (nodes > 1 or count not in (1, "auto")):
        where = f"trainer.num_nodes={nodes}" if nodes > 1 else f"trainer.devices={text(devices)}"
        raise KitsError(f"{where}: several devices need a process each; add trainer=ddp (one machine) or trainer=slurm (several)")
    if trainer["sync_batchnorm"] and trainer["accelerator"] == "cpu":
        raise KitsError("trainer.sync_batchnorm=true: torch synchronizes statistics on GPUs only; set it to false on a CPU")


def check_coarse_patch(config: dict[str, Any]) -> None:
    """Whole slices of the coarse grid, of a size that the network's strides divide."""
    size, patch = config["data"]["coarse_size"], config["sampling"]["patch"]
    multiple = coarse_multiple(config["model"])
    if size % multiple:
        raise KitsError(
            f"data.coarse_size={size}: the coarse network's strides need a multiple of {multiple};"
            f" the nearest are {' and '.join(map(str, nearest_multiples(size, multiple)))} (then run kits.prepare again)"
        )
    if patch[1:] != [size, size]:
        raise KitsError(
            f"sampling.patch={text(patch)}: the coarse stage reads whole slices, and data.coarse_size={size};"
            f" give sampling.patch={text([patch[0], size, size])}"
        )


def check_fine_patch(config: dict[str, Any]) -> None:
    """An in-plane size that every encoder takes, as far as that is known without building it."""
    patch, multiple = config["sampling"]["patch"], fine_multiple(config["model"])
    if any(size % multiple for size in patch[1:]):
        near = [nearest_multiples(size, multiple) for size in patch[1:]]
        smaller, larger = ([patch[0], *(pair[end] for pair in near)] for end in (0, -1))
        raise KitsError(
            f"sampling.patch={text(patch)}: the encoders' scales (model.out_indices) need multiples of {multiple} in-plane;"
            f" the nearest are {text(smaller)} and {text(larger)}"
        )


def nearest_multiples(size: int, multiple: int) -> list[int]:
    """The next smaller and the next larger multiple, or the size itself."""
    return sorted({max(multiple, size // multiple * multiple), math.ceil(size / multiple) * multiple})


def check_staged(config: dict[str, Any]) -> None:
    """Each phase of a staged training has something to learn and an epoch to do it in."""
    if config["training"] != "staged":
        return
    shares, epochs = config["staged_shares"], config["trainer"]["max_epochs"]
    if sum(shares) >= 1:
        raise KitsError(f"staged_shares={text(shares)}: give the shares of the sources and of the fusion, together less than 1")
    if not every_phase(epochs, shares):
        enough = next(more for more in range(epochs, 10_000) if every_phase(more, shares))
        raise KitsError(
            f"trainer.max_epochs={epochs}: too few for the phases of training=staged with staged_shares={text(shares)};"
            f" give at least {enough}"
        )


def every_phase(epochs: int, shares: Sequence[float]) -> bool:
    """Whether each phase that has a share has an epoch; rounded as `kits.models.finenet.phase_at` does."""
    ends = [0, round(epochs * shares[0]), round(epochs * sum(shares)), epochs]
    wanted = [shares[0] > 0, shares[1] > 0, True]
    return all(later > earlier or not want for earlier, later, want in zip(ends, ends[1:], wanted, strict=False))
