"""`python -m kits.train stage=coarse|fine`: train one stage; `resume=RUN_FOLDER` goes on."""

from typing import TYPE_CHECKING

from kits.config.command import command
from kits.runs.folder import resumed_options, settle

if TYPE_CHECKING:
    from kits.config.schema.training import Train


def train(options: "Train") -> float:
    """Train one stage and leave its configuration, checkpoints, metrics and manifest.

    In the run folder: config.yaml, best.ckpt, last.ckpt, metrics.csv, manifest.json.

    Returns:
        the best validation score; NaN where nothing was validated.
    """
    asked = settle(options)
    from pytorch_lightning import seed_everything

    from kits.runs.resuming import where_to_start
    from kits.tracking.loggers import build_loggers
    from kits.training.callbacks import build_callbacks
    from kits.training.datamodule import KitsDataModule
    from kits.training.fine_tuning import inherit
    from kits.training.fitting import choose_precision, guarded
    from kits.training.modules import MODULES
    from kits.training.trainer import build_trainer

    options = choose_precision(asked)
    seed_everything(options.seed, workers=True, verbose=False)
    data = KitsDataModule(options)
    data.setup()
    start = where_to_start(options, data.data_hash)
    module = MODULES[options.stage](options, pretrained=start.content is None and options.init is None)
    inherit(module, start)
    trainer = build_trainer(options, start, callbacks=build_callbacks(options, data, start), logger=build_loggers(options, start))
    with guarded(trainer, module, data, start, asked):
        trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint)
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    return float("nan") if score is None else float(score)


main = command("train", instead=resumed_options)(train)

if __name__ == "__main__":
    main()
