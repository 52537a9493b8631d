"""`python -m kits.train stage=coarse|fine [fold=0] [experiment=STUDY/RECIPE]`: train one stage on a prepared cache."""

from pathlib import Path
from typing import Any

from kits.cli import command
from kits.config import one_line, require
from kits.errors import KitsError


@command("train", multirun="kits.sweep")
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
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    # Its tips about clusters, loaders and loggers would drown what matters here.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (".*treespec", "The '.*_dataloader' does not have many workers", "(Checkpoint|Experiment logs) directory"):
        warnings.filterwarnings("ignore", message)

    from kits.callbacks import SCORE, build_callbacks
    from kits.data.datamodule import KitsDataModule
    from kits.stages import MODULES

    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = KitsDataModule(config)
    # In the checkpoint, so that no model is ever asked for out-of-fold boxes of a case that it learned from.
    config = {**config, "trained_on": data.split["train"]}
    module = MODULES[config["stage"]](config, pretrained=True)
    try:
        trainer = pl.Trainer(
            **config["trainer"],
            default_root_dir=config["run_dir"],
            callbacks=build_callbacks(config, data.data_hash, data.split),
            logger=build_loggers(config),
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise KitsError(f"trainer: {one_line(error)}") from error
    if trainer.world_size > 1:
        raise KitsError("trainer.devices: a run uses one device, so that every case is validated; give trainer.devices=1")
    # Nothing can be wrong with the configuration any more: an older run makes way, before the new manifest is written.
    for name in ("best.ckpt", "last.ckpt"):
        (Path(config["run_dir"]) / name).unlink(missing_ok=True)
    print(f"{config['stage']}: {len(data.split['train'])} training and {len(data.split['validation'])} validation cases")
    trainer.fit(module, data.train_dataloader(), data.val_dataloader())
    best = trainer.checkpoint_callback
    assert best is not None
    score = getattr(best, "best_model_score", None)
    if score is None:
        raise KitsError(f"run_dir={config['run_dir']}: no epoch was finished, so there is no checkpoint; train longer")
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
