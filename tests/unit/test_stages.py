"""The two LightningModules: a loss that is no number, rates by part, what stays frozen, the coarse grid with joined slices."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins import MixedPrecision
from torch.utils.data import DataLoader

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.training.modules import MODULES
from kits.training.trainer import quieten
from tests.conftest import data_of, prepare, training_options

COARSE = ["stage=coarse", "model.width=4", "model.depth=2", "data.coarse_size=32", "sampling.patch=[4,32,32]"]
FINE = [
    "stage=fine",
    "model.sources=[{backbone:test_efficientnet,weights:null}]",
    "model.out_indices=[0,1]",
    "model.widths=[4,4]",
    "model.width=4",
    "model.stem_width=2",
]
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def module_of(overrides: list[str]) -> Any:
    options = training_options(overrides)
    torch.manual_seed(0)
    return MODULES[options.stage](options, pretrained=False)


def trainer_of(**options: Any) -> pl.Trainer:
    quieten()
    return pl.Trainer(accelerator="cpu", devices=1, limit_val_batches=0, **{"max_epochs": 1, **QUIET, **options})


def fit(trainer: pl.Trainer, module: Any, *images: float) -> None:
    trainer.fit(module, batches(*images), batches(0.0))  # of which none is validated, but Lightning asks for some


def batches(*images: float) -> DataLoader:
    """One batch (1, 1, 4, 32, 32) for each of these intensities; half of its voxels are kidney."""
    label = torch.zeros(4, 32, 32, dtype=torch.long)
    label[:, :16] = 1
    samples = [{"image": torch.full((1, 4, 32, 32), image), "label": label} for image in images]
    return DataLoader(samples, batch_size=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("overrides", [COARSE, FINE], ids=["coarse", "fine"])
@pytest.mark.parametrize("image", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(overrides: list[str], image: float) -> None:
    trainer = trainer_of(log_every_n_steps=1)
    with pytest.raises(KitsError, match=r"^train/loss: nan at step 1, .*take trainer\.precision=32-true, a lower optimizer\.lr"):
        fit(trainer, module_of(overrides), 0.1, image, 0.1)


def test_only_logged_steps_look_at_the_loss_and_find_what_became_of_it() -> None:
    trainer = trainer_of(log_every_n_steps=3)
    with pytest.raises(KitsError, match="nan at step 2,"):  # of the second batch, from 0: by the third the weights are lost
        fit(trainer, module_of(COARSE), 0.1, float("nan"), 0.1, 0.1)
    fit(trainer_of(log_every_n_steps=1), module_of(COARSE), 0.1, 0.1)


@pytest.mark.parametrize(("scale", "hopeless"), [(2.0**16, False), (0.5, True)])
def test_a_step_that_float16_leaves_out_is_no_reason_to_end(scale: float, hopeless: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    module = module_of(COARSE)
    module.trainer = trainer_of(plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    scaler.scale(torch.zeros(()))  # until it is first used it has no scale but the one to begin with
    if hopeless:
        with pytest.raises(KitsError, match="train/loss: inf at step 0"):
            module.refuse(torch.tensor(torch.inf))
    else:
        module.refuse(torch.tensor(torch.inf))


def test_pretrained_layers_learn_at_their_own_rates_and_the_schedule_keeps_the_ratio() -> None:
    rates: list[list[float]] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    options = ["optimizer.lr=0.01", "optimizer.encoder_factor=0.1", "optimizer.encoder_decay=0.5", "scheduler=cosine"]
    module = module_of([*FINE, *options])
    fit(trainer_of(callbacks=[Watch()]), module, 0.1, 0.2, 0.3, 0.4)
    assert sorted(rates[0]) == pytest.approx([0.0005, 0.001, 0.01])
    for now in rates[1:]:
        assert now == pytest.approx([rate * now[0] / rates[0][0] for rate in rates[0]])
    assert rates[-1][0] < 0.2 * rates[0][0]


@pytest.mark.parametrize("training", ["parallel", "staged"])
@pytest.mark.parametrize("freeze_statistics", [False, True])
def test_what_is_frozen_stays_frozen_in_a_training(training: str, freeze_statistics: bool) -> None:
    """Neither weights nor statistics of a frozen scale move, whatever asks the encoder meanwhile, as the rates by scale do."""
    options = ["staged_shares=[0,0]", "optimizer.encoder_decay=0.5", f"model.freeze_statistics={freeze_statistics}"]
    module = module_of([*FINE, f"training={training}", "model.freeze_stages=1", *options])
    encoder = module.network.sources[0].encoder
    stage = encoder.stages()
    before = {name: value.clone() for name, value in encoder.features.state_dict().items() if value.is_floating_point()}
    fit(trainer_of(), module, 0.1, 0.2)
    after = encoder.features.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {stage[name.replace("running_mean", "weight").replace("running_var", "weight")] for name in moved}
    assert layers == {1}
    assert any("running" in name for name in moved) is not freeze_statistics


def test_early_stopping_counts_in_the_last_phase_only() -> None:
    """Nothing ever counts as better: of 2 + 2 + 3 epochs the first that may end the training is the first of the last phase."""
    stopping = EarlyStopping("train/loss", patience=1, min_delta=1e9, check_on_train_epoch_end=True)
    for training, epochs in (("parallel", 2), ("staged", 5)):
        trainer = trainer_of(max_epochs=7, log_every_n_steps=1, callbacks=[deepcopy(stopping)])
        fit(trainer, module_of([*FINE, f"training={training}", "staged_shares=[0.3,0.3]"]), 0.1)
        assert trainer.current_epoch == epochs


def test_the_coarse_stage_learns_and_is_scored_on_joined_slices(kits_tree: Path, tmp_path: Path) -> None:
    """The tree's slices are 4 mm thick: joined to 8 mm they are half as many, for the cache, the training and the scores."""
    sizes = [*COARSE, "split=paper", "data.roi_rule.min_voxels=100", "data.workers=1", "data.loader_workers=0"]
    overrides = [*sizes, f"data.root={kits_tree}", f"data.cache={tmp_path}", "data.coarse_z_mm=8.0"]
    config = compose("train", overrides)
    prepare(config["data"])
    data = data_of(config)
    case = data.cases["validation"][0]
    assert case.shape[0] == 20
    assert case.coarse_image.shape == case.coarse_label.shape == (10, 32, 32)
    module = module_of(overrides).eval()
    with torch.no_grad():
        module.network.head.bias.fill_(1e4)  # foreground everywhere
    found = module.examine(case)
    assert found.scene.spacing == pytest.approx((8.0, 3.0, 3.0))
    assert found.scene.scores["recall"] == found.scene.scores["roi_tumor"] == found.scene.scores["roi_share"] == 1
    truth = np.asarray(case.coarse_label) > 0
    assert found.scene.scores["dice"] == pytest.approx(2 * truth.sum() / (truth.size + truth.sum()))
    with pytest.raises(KitsError, match=r"run kits\.prepare again"):
        data_of(overrides[:-1])
