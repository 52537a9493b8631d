"""`python -m kits.train stage=coarse|fine [fold=0] [experiment=STUDY/RECIPE]`: train one stage on a prepared cache."""

from pathlib import Path
from typing import Any

from kits.cli import command
from kits.config import require
from kits.errors import KitsError


@command("train")
def main(config: dict[str, Any]) -> None:
    """Train one stage and leave best.ckpt, last.ckpt, metrics.csv and manifest.json in the run folder."""
    require(config["run_dir"], "run_dir", "add run_dir=DIR")
    if (Path(config["run_dir"]) / "best.ckpt").exists() and not config["overwrite"]:
        raise KitsError(f"run_dir={config['run_dir']}: holds a run already; give another run_dir=DIR, or overwrite=true")
    train(config)


def train(config: dict[str, Any]) -> None:
    """Fit the stage that the configuration names."""
    import logging
    import warnings

    import pytorch_lightning as pl

    # Its tips about clusters, loaders and loggers would drown what matters here.
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*treespec", "The '.*_dataloader' does not have many workers", "(Checkpoint|Experiment logs) directory"):
        warnings.filterwarnings("ignore", message)
    # Scores are gathered from all processes before they are logged; gradients of 1 x 1 kernels have two equivalent layouts.
    for message in ("It is recommended to use `self.log.'val/", "Grad strides do not match bucket view strides"):
        warnings.filterwarnings("ignore", message)

    from kits.callbacks import SCORE, build_callbacks
    from kits.data.datamodule import KitsDataModule
    from kits.distributed import build_trainer, ending_together, synchronize_batchnorm
    from kits.stages import MODULES

    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = KitsDataModule(config)
    # In the checkpoint, so that no model is ever asked for out-of-fold boxes of a case that it learned from.
    config = {**config, "trained_on": data.split["train"]}
    module = MODULES[config["stage"]](config, pretrained=True)
    trainer = build_trainer(config, callbacks=build_callbacks(config, data.data_hash, data.split), logger=build_loggers(config))
    synchronize_batchnorm(module, trainer, config)
    rank, ranks = trainer.global_rank, trainer.world_size
    loaders = data.train_dataloader(rank, ranks), data.val_dataloader(rank, ranks)
    # Nothing can be wrong with the configuration any more: an older run makes way, before the new manifest is written.
    if trainer.is_global_zero:
        for name in ("best.ckpt", "last.ckpt"):
            (Path(config["run_dir"]) / name).unlink(missing_ok=True)
        counts = f"{len(data.split['train'])} training and {len(data.split['validation'])} validation cases"
        print(f"{config['stage']}: {counts}" + (f", {ranks} processes" if ranks > 1 else ""))
    with ending_together(trainer):
        trainer.fit(module, *loaders)
    best = trainer.checkpoint_callback
    assert best is not None
    score = getattr(best, "best_model_score", None)
    if score is None:
        raise KitsError(f"run_dir={config['run_dir']}: no epoch was finished, so there is no checkpoint; train longer")
    if trainer.is_global_zero:
        print(f"best {SCORE} {float(score):.4f}: {Path(config['run_dir']) / 'best.ckpt'}")


def build_loggers(config: dict[str, Any]) -> list[Any]:
    """metrics.csv in the run folder always, and what the group `logger` names beside it.

    Raises:
        KitsError: the group names no logger of ours.
    """
    import os

    from pytorch_lightning.loggers import CSVLogger, WandbLogger

    options = config["logger"]
    loggers: list[Any] = [CSVLogger(config["run_dir"], name="", version="")]
    if options["name"] == "wandb":
        mode = options["mode"] or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        name = Path(config["run_dir"]).name
        chosen = {"project": options["project"], "entity": options["entity"], "mode": mode}
        loggers.append(WandbLogger(name, config["run_dir"], offline=mode == "offline", config=config, **chosen))
    elif options["name"] != "csv":
        raise KitsError(f"logger.name={options['name']}: no such logger; take csv or wandb")
    return loggers


if __name__ == "__main__":
    main()
