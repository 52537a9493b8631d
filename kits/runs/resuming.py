"""Where a training begins: at its beginning, or where its run was interrupted."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kits.config import all_keys, one_line
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.core.plain_files import read_json
from kits.io import write_text
from kits.models.checkpoint import open_checkpoint
from kits.runs.folder import ADJUSTABLE, BEST, CONFIG, LAST, LOCK, MADE, MANIFEST, PATIENCE, check_unused, get
from kits.runs.last_checkpoint import STATE, check_saved


@dataclass(frozen=True)
class Start:
    """Where a training begins: at its beginning, or where a run was interrupted.

    Attributes:
        folder: the run folder.
        checkpoint: what to go on from; None begins at the beginning.
        epoch: the first epoch, from 0.
        batches: those of this epoch that have been trained on, by each of `ranks` processes.
        rows: those of metrics.csv that belong to what has been done.
        step: optimizer steps that have been done.
        seconds: how long it took so far.
        random: random states, see `kits.runs.random_state`.
        manifest: that of the interrupted run.
        wandb_id: the run's name at Weights & Biases, the same before and after.
        found: the state of the folder's checkpoints on which all this stands, see `state_of`.
    """

    folder: Path
    checkpoint: Path | None = None
    epoch: int = 0
    batches: int = 0
    ranks: int = 1
    rows: int = 0
    step: int = 0
    seconds: float = 0.0
    random: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None
    wandb_id: str = field(default_factory=lambda: secrets.token_hex(4))
    found: tuple[tuple[int, int, int] | None, ...] = (None, None)


def where_to_start(config: dict[str, Any], data_hash: str) -> Start:
    """At the beginning, or with `resume` where the run in that folder was interrupted.

    A run that was killed before its first checkpoint starts again, with the same random numbers.

    Raises:
        KitsError: the run is finished, its checkpoint is refused, or configuration or data are no longer those it began with.
    """
    folder = Path(config["run_dir"])
    found = state_of(folder)
    if not config.get("resume"):
        return Start(folder, found=found)
    manifest = read_json(folder / MANIFEST, MADE, "a run's manifest", "move it away") if (folder / MANIFEST).exists() else None
    known = {
        "found": found,
        "manifest": manifest,
        **({"wandb_id": manifest["wandb_id"]} if manifest and "wandb_id" in manifest else {}),
    }
    path = folder / LAST
    if not path.exists():
        if (folder / BEST).exists():
            raise KitsError(
                f"resume={folder}: has {BEST} and no {LAST}, so nothing to go on from; begin again with overwrite=true, or in"
                " another run_dir=DIR"
            )
        return Start(folder, **known)
    content = open_checkpoint(path, config["stage"])
    check_saved(path, content)
    state = content[STATE]
    check_same(config, content["hyper_parameters"], folder)
    if state["data_hash"] != data_hash:
        raise KitsError(f"data.cache={config['data']['cache']}: holds other data than this run began with; give the same")
    if config["trainer"]["max_steps"] != -1:
        raise KitsError("trainer.max_steps: a run that counts steps cannot go on exactly; begin again with trainer.max_epochs")
    check_unfinished(config, content["hyper_parameters"], state)
    progress = {key: state[key] for key in ("epoch", "batches", "rows", "seconds", "random", "ranks")}
    return Start(folder, path, step=content["global_step"], **progress, **known)


def batches_done(start: Start, ranks: int, config: dict[str, Any]) -> int:
    """The batches of the first epoch that have been trained on, as so many processes count them.

    Processes draw every `ranks`-th position of an epoch, so what is done is its beginning however many there were: with other
    batches it goes on exactly where the processes of now, too, would have come to that position.

    Raises:
        KitsError: they would not, or the schedule of the learning rate counts steps.
    """
    if start.checkpoint is None or start.ranks == ranks:
        return start.batches
    before = f"trainer.devices: {ranks} processes, and the run in {start.folder} was trained by {start.ranks}"
    trainer, sampling, scheduler = config["trainer"], config["sampling"], config["scheduler"]
    if scheduler["name"] not in ("constant", "plateau") or scheduler.get("warmup"):
        raise KitsError(f"{before}, whose steps its schedule is laid out over; go on with as many")
    if not start.batches:
        return 0
    batch, patches = sampling["batch_size"], sampling["patches_per_epoch"]
    # The share 1.0 is the whole epoch; the number 1 is one batch.
    usual = all(isinstance(trainer[name], float) and trainer[name] == 1 for name in ("limit_train_batches", "val_check_interval"))
    if usual:
        steps = patches // ranks // batch
        if start.batches == patches // start.ranks // batch:
            return steps  # what is left is the validation
        done, rest = divmod(start.batches * start.ranks, ranks)
        if not rest and done < steps and not done % trainer["accumulate_grad_batches"]:
            return done
    raise KitsError(f"{before}, which stopped within epoch {start.epoch}, at no whole step of {ranks}; go on with as many")


def check_unfinished(config: dict[str, Any], trained: dict[str, Any], state: dict[str, Any]) -> None:
    """Refuse to go on with a run that has come to its end.

    Raises:
        KitsError: it has; the text names what to give to train on.
    """
    done = state["epoch"]
    if done >= config["trainer"]["max_epochs"]:
        raise KitsError(
            f"resume={config['run_dir']}: finished after {done} epochs; give trainer.max_epochs above {done} to train on"
        )
    patience = get(config, PATIENCE)
    stopped_early = state["finished"] and done < trained["trainer"]["max_epochs"]
    if stopped_early and patience <= get(trained, PATIENCE):
        raise KitsError(
            f"resume={config['run_dir']}: stopped after {done} epochs, the last {patience} of them without a better score;"
            f" give {PATIENCE} above {patience} to train on"
        )


def check_same(config: dict[str, Any], trained: dict[str, Any], folder: Path) -> None:
    """Hold the configuration against the one in the checkpoint.

    Raises:
        KitsError: they differ in a key that may not change.
    """
    ignored = (*ADJUSTABLE, "run_dir", "resume", "overwrite")
    for key in sorted({*all_keys(config), *(key for key in all_keys(trained) if key.partition(".")[0] in config)}):
        ours, theirs = get(config, key), get(trained, key)
        if key not in ignored and not isinstance(ours, dict) and ours != theirs:
            was = f"the run in {folder} was trained with {one_line(theirs)}"
            raise KitsError(f"{one_line(key)}={one_line(ours)}: {was}; set it back, or begin a new run")


@contextmanager
def begin(start: Start, config: dict[str, Any], rank: int = 0) -> Iterator[None]:
    """Hold the run folder for this process, with the configuration in it and without what no longer counts.

    Args:
        rank: of several processes, as the trainer counts them, the first keeps the folder.

    Raises:
        KitsError: it cannot be written, another training is at work there, or one has been since `start` was found.
    """
    if rank:
        yield
        return
    with sole_user(start.folder, lock=start.folder / LOCK, key="run_dir", work="kits.train"):
        if start.checkpoint is None and not config.get("overwrite"):
            check_unused(start.folder)
        if state_of(start.folder) != start.found:
            raise KitsError(f"run_dir={start.folder}: another kits.train has worked there since this one began; start it again")
        # What a killed process was writing is there under hidden names.
        outdated = list(start.folder.glob(".*.ckpt")) + list(start.folder.glob(".*.csv"))
        if start.checkpoint is None:
            outdated += [start.folder / name for name in (BEST, LAST)]
        for path in outdated:
            path.unlink(missing_ok=True)
        write_config(start.folder, config)
        yield


def state_of(folder: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """What tells that the checkpoints of a folder have been written, or have gone, in the meantime."""
    found: list[tuple[int, int, int] | None] = []
    for name in (BEST, LAST):
        try:
            status = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Leave the configuration in the run folder."""
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
