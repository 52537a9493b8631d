"""A run that is repeated with its seed gives the same weights, bit by bit; staged training passes through its phases."""

from pathlib import Path

import pytest
import torch

from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.models.finenet import FineNet
from kits.train import train
from tests.conftest import prepare, training_options

TINY = [
    "stage=fine",
    "split=paper",
    "data.roi_rule.min_voxels=100",
    "data.coarse_size=32",
    "data.workers=1",
    "data.loader_workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=3",
    "trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=1",
    "sampling.patch=[4,32,32]",
    "sampling.batch_size=1",
    "sampling.patches_per_epoch=2",
    "inference.window=20",
    "model.sources=[{backbone:test_efficientnet,weights:null},{backbone:test_efficientnet,weights:null,plane:coronal}]",
    "model.out_indices=[0,1]",
    "model.widths=[4,4]",
    "model.width=4",
    "model.stem_width=2",
    "model.deep_supervision=1",
    "model.freeze_statistics=false",
    "optimizer.encoder_factor=0.5",
    "training=staged",
    "staged_shares=[0.34,0.33]",
]


@pytest.fixture(scope="module")
def fit(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory):
    """Train with these overrides; the weights at the end."""
    folder = tmp_path_factory.mktemp("repeated")
    common = [*TINY, f"data.root={kits_tree}", f"data.cache={folder / 'cache'}"]
    prepare(compose("train", common)["data"])

    def run(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        train(training_options([*common, f"run_dir={folder / name}", *overrides]))
        return torch.load(folder / name / "last.ckpt", weights_only=True)["state_dict"]

    return run


def test_the_same_seed_gives_identical_weights_and_another_one_does_not(fit, monkeypatch):
    phases = []
    set_phase = FineNet.set_phase

    def spy(network: FineNet, phase: str) -> None:
        phases.append(phase)
        set_phase(network, phase)

    monkeypatch.setattr(FineNet, "set_phase", spy)
    first, again, other = fit("first"), fit("again"), fit("other", "seed=1")
    assert list(dict.fromkeys(phases)) == ["sources", "fusion", "all"]
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_unknown_training_is_named():
    with pytest.raises(KitsError, match=r"training=alternate: .*parallel, staged"):
        checked("train", [*TINY, "training=alternate", "data.cache=cache"])
