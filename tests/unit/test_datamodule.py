"""The data module in a script of one's own, by Lightning's own calls, as the README shows it."""

import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kits.config.composing import compose
from kits.data.cached_case import CachedCase
from kits.training.modules import MODULES
from kits.training.trainer import quieten
from tests.conftest import data_of, prepare, training_options
from tests.unit.test_runs import TINY

README = Path(__file__).parents[2] / "README.md"
QUIET: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(autouse=True)
def without_advice() -> None:
    """As every training of ours begins."""
    quieten()


class OneLayer(pl.LightningModule):
    """A user's own module: one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 3, 1)
        self.seen: list[Any] = []

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        self.seen.append(tuple(batch["image"].shape))
        return nn.functional.cross_entropy(self.layer(batch["image"]), batch["label"].long())

    def validation_step(self, case: CachedCase, index: int) -> None:
        self.seen.append((case.id, case.image.shape, case.spacing))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_the_lines_of_the_readme_serve_a_users_own_module(kits_tree: Path, tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python\n(.*?KitsDataModule.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    here = [f"data.cache={tmp_path}", "data.coarse_size=32", "data.roi_rule.min_voxels=100"]  # sizes of small cases
    prepare(compose("prepare", [f"data.root={kits_tree}", *here, "split=paper", "data.workers=1"])["data"])
    names: dict[str, Any] = {}
    exec(lines.replace('"data.cache=/fast/kits19-cache"', str(here)[1:-1]), names)
    module = OneLayer()
    trainer = pl.Trainer(
        **QUIET, max_epochs=1, limit_train_batches=2, num_sanity_val_steps=0, logger=False, enable_checkpointing=False
    )
    trainer.fit(module, datamodule=names["data"])
    (case,) = names["data"].cases["validation"]
    assert module.seen == [(1, 1, 24, 160, 160)] * 2 + [(case.id, (20, 64, 64), (4.0, 1.5, 1.5))]


@pytest.fixture(scope="module")
def tiny(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a small training of the coarse stage whose cache is ready."""
    overrides = [*TINY, f"data.root={kits_tree}", f"data.cache={tmp_path_factory.mktemp('cache')}"]
    prepare(compose("train", overrides)["data"])
    return overrides


def test_lightnings_own_trainer_fits_and_validates_our_module(tiny: list[str], tmp_path: Path) -> None:
    options, data = training_options(tiny), data_of(tiny)
    torch.manual_seed(0)
    module = MODULES["coarse"](options, pretrained=False)
    trainer = pl.Trainer(**QUIET, max_epochs=1, logger=False, default_root_dir=tmp_path, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data)
    (scores,) = trainer.validate(module, datamodule=data, verbose=False)
    module.eval()
    with torch.no_grad():
        alone = [module.examine(case).scene.scores["score"] for case in data.cases["validation"]]
    assert scores["val/score"] == pytest.approx(fmean(alone))
    # A script that saves by Lightning's own callback leaves a checkpoint that the guard of out-of-fold boxes can judge.
    (path,) = tmp_path.rglob("*.ckpt")
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["trained_on"] == data.split["train"]
    assert content["KitsDataModule"]["ranks"] == 1
