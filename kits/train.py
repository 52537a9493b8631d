"""`python -m kits.train stage=coarse|fine [fold=0] [experiment=STUDY/RECIPE]`: train one stage on a prepared cache.

`python -m kits.train resume=RUN_FOLDER` goes on with a run that was interrupted.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from kits.config import one_line, plain, require
from kits.config.command import command
from kits.core.errors import KitsError

if TYPE_CHECKING:
    from kits.config.schema.training import Train


def resumed(arguments: list[str]) -> Train | None:
    """The options of the run to go on with, where the command line names one."""
    if not any(argument.startswith("resume=") for argument in arguments):
        return None
    from kits.runs.folder import resumed_configuration

    config = resumed_configuration(arguments)
    return None if config is None else check_resumed(config)


def check_resumed(config: dict[str, Any]) -> Train:
    """Hold the configuration of a run folder, which may be damaged or edited, against the rules of a command line's.

    Raises:
        KitsError: a key is unknown or lacks, or a value is none that its key may have.
    """
    from kits.config.schema import check
    from kits.core.plain_files import misfit

    where = f"resume={config['resume']}: its config.yaml cannot be trained with"
    wrong = misfit(config, {"stage": str, "model": {"name": str}})
    if wrong or config["stage"] not in ("coarse", "fine"):
        raise KitsError(f"{where} ({wrong or 'stage'})")
    try:
        options: Train = check("train", config, {})
    except KitsError as error:
        raise KitsError(f"{where} ({error})") from error
    return options


@command("train", instead=resumed)
def main(options: Train) -> float:
    """Train one stage and leave config.yaml, best.ckpt, last.ckpt, metrics.csv and manifest.json in the run folder."""
    config = plain(options)
    require(config["run_dir"], "run_dir", "add run_dir=DIR")
    from kits.runs.folder import going_on

    return train(going_on(config))


def train(config: dict[str, Any]) -> float:
    """Fit the stage that the configuration names, with `resume` from where that run was interrupted; the best score."""
    check_ranks()
    import pytorch_lightning as pl

    quieten()
    from kits.inference.devices import AUTO, described
    from kits.inference.fallback import is_out_of_memory
    from kits.models.checkpoint import open_checkpoint
    from kits.runs.checkpointing import Stopped, WholeCheckpoints
    from kits.runs.folder import BEST
    from kits.runs.last_checkpoint import check_fits
    from kits.runs.resuming import batches_done, begin, where_to_start
    from kits.tracking import CaseMonitor, StepMonitor, build_loggers
    from kits.tracking.names import SCORE
    from kits.training.callbacks import build_callbacks
    from kits.training.datamodule import KitsDataModule
    from kits.training.modules import MODULES
    from kits.training.trainer import (
        build_trainer,
        check_scored,
        compile_network,
        ending_together,
        synchronize_batchnorm,
        with_precision,
    )

    chosen = config["trainer"]["precision"] == AUTO
    config, precision = with_precision(config)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = KitsDataModule(config)
    start = where_to_start(config, data.data_hash)
    asked = {**config, "resume": None}
    # In the checkpoint, so that no model is ever asked for out-of-fold boxes of a case that it learned from.
    config = {**asked, "trained_on": data.split["train"]}
    module = MODULES[config["stage"]](config, pretrained=start.checkpoint is None)
    callbacks = build_callbacks(config, data.data_hash, data.split, start)
    callbacks += [StepMonitor(), CaseMonitor(config, data.split["validation"])]
    loggers = build_loggers(config, start)
    trainer = build_trainer(config, [WholeCheckpoints()], callbacks=callbacks, logger=loggers)
    synchronize_batchnorm(module, trainer, config)
    rank, ranks = trainer.global_rank, trainer.world_size
    if start.checkpoint is not None:
        optimizer = module.build_optimizer()
        schedule = module.build_schedule(optimizer, 1)["scheduler"]
        check_fits(start.checkpoint, open_checkpoint(start.checkpoint), module, optimizer, schedule, trainer)
    compile_network(module, config)
    done = batches_done(start, ranks, config)
    gpus = trainer.num_devices if trainer.strategy.root_device.type == "cuda" else 0
    batches = data.train_dataloader(rank, ranks, epoch=start.epoch, batches=done, gpus=gpus)
    cases = data.val_dataloader(rank, ranks)
    check_scored(trainer, len(batches))
    if trainer.is_global_zero:
        counts = f"{len(data.split['train'])} training and {len(data.split['validation'])} validation cases"
        print(f"{config['stage']}: {counts}" + (f", {ranks} processes" if ranks > 1 else ""))
        print(f"{batches.num_workers} loader workers on {described(trainer.strategy.root_device, precision, chosen=chosen)}")
    # Nothing can be wrong with the configuration any more: now the run folder may change.
    with begin(start, asked, rank), ending_together(trainer):
        try:
            trainer.fit(module, batches, cases, ckpt_path=start.checkpoint)
        except Stopped as stop:
            if trainer.is_global_zero:
                way = shlex.join(["python", "-m", "kits.train", f"resume={start.folder}"])
                print(f"{stop.signal.name}: saved at step {trainer.global_step}; go on with: {way}")
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise KitsError(
                f"{trainer.strategy.root_device}: memory ran out in step {trainer.global_step + 1} ({one_line(error)[:160]});"
                f" give a smaller sampling.patch or sampling.batch_size{other_ways(config)}"
            ) from error
    best = trainer.checkpoint_callback
    score = getattr(best, "best_model_score", None)
    if score is None:
        raise KitsError(f"run_dir={config['run_dir']}: no epoch was finished, so there is no checkpoint; train longer")
    if trainer.is_global_zero:
        print(f"best {SCORE} {float(score):.4f}: {start.folder / BEST}")
    return float(score)


def other_ways(config: dict[str, Any]) -> str:
    """What else saves memory and is not asked for yet."""
    ways = [] if config["trainer"]["precision"] != "32-true" else ["trainer.precision=bf16-mixed"]
    ways += [] if config["model"].get("checkpointing", True) else ["model.checkpointing=true"]
    return "".join(f", or {way}" for way in ways)


def check_ranks() -> None:
    """Refuse ranks that are no numbers: Lightning reads them when it is imported, whoever has set them.

    Raises:
        KitsError: one is none.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        try:
            int(os.environ.get(name, "0"))
        except ValueError as error:
            raise KitsError(f"{name}={os.environ[name]}: the environment holds no whole number there; unset it") from error


def quieten() -> None:
    """Lightning's tips about clusters, loaders and loggers would drown what matters here."""
    import logging
    import warnings

    for name in (
        "pytorch_lightning.utilities.rank_zero",
        "pytorch_lightning.accelerators.cuda",
        "lightning_fabric.utilities.distributed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*treespec",
        "The '.*_dataloader' does not have many workers",
        "(Checkpoint|Experiment logs) directory",
        "You're resuming from a checkpoint that ended before the epoch ended",  # our sampler begins where it ended
        "It is recommended to use `self.log.'val/",  # scores are gathered from all processes before they are logged
        "Found .* in eval mode at the start of training",  # frozen statistics are, on purpose
        "Grad strides do not match bucket view strides",  # gradients of 1 x 1 kernels have two equivalent layouts
    ):
        warnings.filterwarnings("ignore", message)


if __name__ == "__main__":
    main()
