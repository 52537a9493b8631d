"""The beginning of a training, at its start or where its run was interrupted."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor

from kits.config import flat, one_line, plain
from kits.config.composing import with_newer_keys
from kits.config.schema.training import Coarse, Fine
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.core.plain_files import read_json
from kits.core.sharding import launched
from kits.io import write_text
from kits.models.checkpoint import open_checkpoint
from kits.runs.ending import EPOCHS
from kits.runs.folder import ADJUSTABLE, BEST, CONFIG, LAST, LOCK, MADE, MANIFEST, PATIENCE, PLACING, check_unused, checkpoints

# Where a checkpoint holds the state that Lightning does not know of, that of the data module (the place within an epoch), and the
# digest of all it holds.
STATE, PLACE, SEAL = "kits_run", "KitsDataModule", "kits_seal"


@dataclass(frozen=True)
class Start:
    """The place where a training begins: its start, or where a run was interrupted.

    Attributes:
        folder: the run folder.
        content: of the checkpoint that it goes on from; None begins at the beginning.
        rows: those of metrics.csv that belong to what has been done.
        step: optimizer steps that have been done.
        seconds: how long it took so far.
        manifest: that of the interrupted run.
        wandb_id: the run's name at Weights & Biases, the same before and after.
        found: the state of the folder's checkpoints on which all this stands, see `state_of`.
    """

    folder: Path
    content: dict[str, Any] | None = field(default=None, repr=False)
    rows: int = 0
    step: int = 0
    seconds: float = 0.0
    manifest: dict[str, Any] | None = None
    # `wandb agent` has named the run that it starts.
    wandb_id: str = field(default_factory=lambda: os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
    found: tuple[tuple[int, int, int] | None, ...] = (None, None)

    @property
    def checkpoint(self) -> Path | None:
        """The file whose content this is."""
        return None if self.content is None else self.folder / LAST

    @property
    def place(self) -> dict[str, int]:
        """The epoch, from 0, and the batches of it that each of `ranks` processes has been trained on."""
        return {"epoch": 0, "batches": 0, "ranks": 1} if self.content is None else self.content[PLACE]


def where_to_start(options: Coarse | Fine, data_hash: str) -> Start:
    """Begin at the beginning, or with `resume` where the run in that folder was interrupted.

    A run that was killed before its first checkpoint starts again, with the same random numbers.

    Raises:
        KitsError: the run is finished, its checkpoint is refused, or configuration or data are no longer those it began with.
    """
    folder = Path(options.run_dir)
    found = state_of(folder)
    if not options.resume:
        return Start(folder, found=found)
    manifest = read_json(folder / MANIFEST, MADE, "a run's manifest", "move it away") if (folder / MANIFEST).exists() else None
    start = Start(folder, manifest=manifest, found=found)
    if manifest and "wandb_id" in manifest:
        start = replace(start, wandb_id=manifest["wandb_id"])
    path = folder / LAST
    if not path.exists():
        if (folder / BEST).exists():
            raise KitsError(
                f"resume={folder}: has {BEST} and no {LAST}, so nothing to go on from; begin again with overwrite=true, or in"
                " another run_dir=DIR"
            )
        return start
    content = open_checkpoint(path, options.stage)
    check_saved(path, content)
    state = content[STATE]
    check_same(plain(options), content["hyper_parameters"], folder)
    if state["data_hash"] != data_hash:
        raise KitsError(f"data.cache={options.data.cache}: holds other data than this run began with; give the same")
    if options.trainer.max_steps != -1:
        raise KitsError("trainer.max_steps: a run that counts steps cannot go on exactly; begin again with trainer.max_epochs")
    check_unfinished(options, content)
    return replace(start, content=content, rows=state["rows"], step=content["global_step"], seconds=state["seconds"])


def batches_done(place: Mapping[str, int], ranks: int, options: Coarse | Fine) -> int:
    """Count the batches of the epoch that have been trained on, as `ranks` processes count them.

    Processes draw every `ranks`-th position of an epoch, so what is done is its beginning however many there were: with other
    batches it goes on exactly where the processes of now, too, would have come to that position.

    Args:
        place: the epoch, and the batches of it that each of its `ranks` processes has been trained on.

    Raises:
        KitsError: they would not, or the schedule of the learning rate counts steps.
    """
    batches, earlier = place["batches"], place["ranks"]
    if earlier == ranks:
        return batches
    before = f"trainer.devices: {ranks} processes, and the run in {options.run_dir} was trained by {earlier}"
    trainer, size, patches = options.trainer, options.sampling.batch_size, options.sampling.patches_per_epoch
    if options.scheduled:
        raise KitsError(f"{before}, whose steps its schedule is laid out over; go on with as many")
    if not batches:
        return 0
    # The share 1.0 is the whole epoch; the number 1 is one batch.
    usual = all(isinstance(one, float) and one == 1 for one in (trainer.limit_train_batches, trainer.val_check_interval))
    if usual:
        steps = patches // ranks // size
        if batches == patches // earlier // size:
            return steps  # what is left is the validation
        done, rest = divmod(batches * earlier, ranks)
        if not rest and done < steps and not done % trainer.accumulate_grad_batches:
            return done
    raise KitsError(f"{before}, which stopped within epoch {place['epoch']}, at no whole step of {ranks}; go on with as many")


def check_unfinished(options: Coarse | Fine, content: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that has come to its end.

    Args:
        content: of its checkpoint.
    """
    done, end = content[PLACE]["epoch"], content[STATE]["ended"]
    key, why = end or ("", "")
    ended = f"resume={options.run_dir}: " + (f"ended in epoch {done}, {why}" if end else f"has trained {done} epochs")
    if end and key not in (EPOCHS, PATIENCE):
        raise KitsError(f"{ended}; begin a new run to train longer")
    if key == PATIENCE:
        waited = max(state["wait_count"] for name, state in content["callbacks"].items() if name.startswith("EarlyStopping"))
        if options.callbacks.early_stopping.patience <= waited:
            raise KitsError(f"{ended}; give {PATIENCE} above {waited} to train on")
    if done >= options.trainer.max_epochs:
        raise KitsError(f"{ended}; give trainer.max_epochs above {done} to train on")


def check_same(config: Mapping[str, Any], trained: Mapping[str, Any], folder: Path) -> None:
    """Refuse a configuration that differs from the checkpoint's in a key that may not change."""
    ours, theirs = flat(config), flat(trained)
    if set(ours) - set(theirs):  # keys that are newer than it
        theirs = flat(with_newer_keys("train", trained))
    for key in sorted({*ours, *(key for key in theirs if key.partition(".")[0] in config)}):
        if key not in (*ADJUSTABLE, *PLACING) and ours.get(key) != theirs.get(key):
            was = f"the run in {folder} was trained with {one_line(theirs.get(key))}"
            raise KitsError(f"{one_line(key)}={one_line(ours.get(key))}: {was}; set it back, or begin a new run")


@contextmanager
def run_folder(start: Start, options: Coarse | Fine, trainer: pl.Trainer) -> Iterator[None]:
    """Hold the run folder while a training lasts, with its configuration, rid of what is void.

    The first of several processes does. Those that torchrun or srun has started hear of its refusal, which they would wait for
    half an hour; those that Lightning starts are not there yet.

    Raises:
        KitsError: it cannot be written, another training is at work there, or one has been since `start` was found.
    """
    if launched().count > 1:
        trainer.strategy.setup_environment()  # Lightning does the same in `fit`, and finds it done
    refusal = None
    with ExitStack() as held:
        if trainer.is_global_zero:
            try:
                held.enter_context(begin(start, options))
            except KitsError as error:
                refusal = str(error)
        refusal = trainer.strategy.broadcast(refusal)
        if refusal is not None:
            raise KitsError(refusal)
        yield


@contextmanager
def begin(start: Start, options: Coarse | Fine) -> Iterator[None]:
    """Hold the run folder for this process, and make it ready for the training."""
    with sole_user(start.folder, lock=start.folder / LOCK, key="run_dir", work="kits.train"):
        if start.content is None and not options.overwrite:
            check_unused(start.folder)
        if state_of(start.folder) != start.found:
            raise KitsError(f"run_dir={start.folder}: another kits.train has worked there since this one began; start it again")
        if start.content is None:
            for path in checkpoints(start.folder):
                path.unlink()
        config = plain(options.model_copy(update={"resume": None}))
        write_text(start.folder / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        yield


def state_of(folder: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Note what tells that the checkpoints of a folder have been written, or have gone, in the meantime."""
    found: list[tuple[int, int, int] | None] = []
    for name in (BEST, LAST):
        try:
            status = (folder / name).stat()  # it may go at any moment
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def seal(content: Mapping[str, Any]) -> str:
    """Digest everything that a checkpoint holds but the digest itself."""
    total = blake2b(digest_size=16)

    def add(node: Any) -> None:
        if isinstance(node, Tensor):
            total.update(f"{node.dtype}{tuple(node.shape)}".encode())
            total.update(node.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(node, Mapping | list | tuple):
            total.update(f"({len(node)}".encode())
            for part in node.items() if isinstance(node, Mapping) else node:
                add(part)
        else:
            total.update(f"{node!r};".encode())

    add({key: value for key, value in content.items() if key != SEAL})
    return total.hexdigest()


def check_saved(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not hold all that its run goes on with, or not as it was written.

    Lightning goes on with whatever it finds: without the state of its loops it would begin the training again, without that of a
    callback it would forget the best score. Bytes that a disk has lost are found by the file's checksums, see
    `kits.models.checkpoint`.
    """
    if STATE not in content:
        raise KitsError(f"{path}: holds no state to go on from; give resume= a folder whose {path.name} kits.train wrote")
    if content.get(SEAL) != seal(content):
        raise KitsError(f"{path}: damaged or edited; begin again with overwrite=true, or in another run_dir=DIR")
