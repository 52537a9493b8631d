"""Training on many devices, as far as one process shows it: shares of patches and cases, refusals, SLURM, SyncBatchNorm."""

import os
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn

from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.core.ranks import gather, global_sum
from kits.models.encoder2d import Encoder2d, with_synchronized_statistics
from kits.training.datamodule import EpochSampler, KitsDataModule
from kits.training.fitting import adapt_network
from kits.training.modules import CoarseModule
from kits.training.trainer import STARTED_BY, build_trainer
from tests.conftest import data_of, prepare, training_options

QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
COARSE = ["stage=coarse", "model.width=4", "model.depth=2", "data.coarse_size=32", "sampling.patch=[4,32,32]"]
# What srun tells the last of 2 x 2 processes.
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


@pytest.fixture(autouse=True)
def first_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No launcher's environment, and Lightning's note of this process's rank put back."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT", STARTED_BY, *SLURM):
        monkeypatch.setenv(name, "0")  # so that whatever a test makes of it is undone
        monkeypatch.delenv(name)
    rank = getattr(rank_zero_only, "rank", 0)
    yield
    rank_zero_only.rank = rank


def options_of(*overrides: str) -> Any:
    return training_options(["stage=fine", "trainer.accelerator=cpu", "trainer.precision=32-true", *overrides])


@pytest.mark.parametrize(("length", "ranks", "batch"), [(12, 2, 1), (13, 2, 3), (12, 3, 2), (7, 4, 1)])
def test_the_ranks_batches_of_a_step_are_the_global_batch(length: int, ranks: int, batch: int) -> None:
    alone, samplers = EpochSampler(length), [EpochSampler(length, rank, ranks) for rank in range(ranks)]
    for epoch in (0, 3):
        for sampler in (alone, *samplers):
            sampler.set_epoch(epoch)
        drawn, everything = [list(sampler) for sampler in samplers], list(alone)
        assert [len(own) for own in drawn] == [length // ranks] * ranks == [len(sampler) for sampler in samplers]
        for step in range(length // (ranks * batch)):
            together = [position for own in drawn for position in own[step * batch : (step + 1) * batch]]
            assert sorted(together) == everything[step * ranks * batch : (step + 1) * ranks * batch]


@pytest.fixture(scope="module")
def data(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> KitsDataModule:
    """Two training and two validation cases."""
    cache = tmp_path_factory.mktemp("cache")
    small = ["data.coarse_size=32", "data.roi_rule.min_voxels=100", "data.workers=1", "data.loader_workers=0"]
    small += ["split=paper", "split.validation_fraction=0.5", "sampling.patches_per_epoch=5", "sampling.batch_size=2"]
    config = compose("train", ["stage=fine", *small, f"data.root={kits_tree}", f"data.cache={cache}"])
    prepare(config["data"])
    return data_of(config)


def as_process(data: KitsDataModule, rank: int, ranks: int) -> KitsDataModule:
    """The data module in one of several processes, as a trainer would number them."""
    data = copy(data)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    return data


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_validation_cases_are_shared_out_and_a_rank_without_one_has_a_place_holder(data: KitsDataModule, ranks: int) -> None:
    shares = [list(as_process(data, rank, ranks).val_dataloader()) for rank in range(ranks)]
    assert all(shares)
    assert sorted(case.id for own in shares for case in own if case is not None) == sorted(data.split["validation"])


def test_an_epoch_needs_a_batch_for_every_process(data: KitsDataModule) -> None:
    second = as_process(data, 1, 2)
    assert len(second.train_dataloader()) == second.check_batches() == 1
    with pytest.raises(KitsError, match=r"patches_per_epoch=5: fewer than one step takes, 6 .* of 3 processes; give at least 6"):
        as_process(data, 0, 3).check_batches()


def test_slurm_without_srun_is_one_line() -> None:
    with pytest.raises(KitsError, match=r"trainer=slurm: srun has not started this process; write srun before the command"):
        build_trainer(options_of("trainer=slurm"), **QUIET)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_devices_that_cannot_be_had_are_named() -> None:
    with pytest.raises(
        KitsError, match=r"^trainer: [^\n]*torch sees 0 GPUs here, set trainer.accelerator and trainer.devices[^\n]*$"
    ):
        build_trainer(options_of("trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=4"), **QUIET)


def test_slurm_says_how_many_and_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    trainer = build_trainer(options_of("trainer=slurm"), **QUIET)
    assert (trainer.num_nodes, trainer.num_devices, trainer.world_size) == (2, 2, 4)
    assert (trainer.global_rank, trainer.local_rank, trainer.is_global_zero) == (3, 1, False)


def test_processes_and_devices_have_to_be_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KitsError, match="4 processes were started for 1 x 3 devices; start one for each"):
        build_trainer(options_of("trainer=ddp", "trainer.devices=3"), **QUIET)


def test_a_batch_script_without_srun_trains_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_NNODES", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, SLURM[name])
    assert build_trainer(options_of(), **QUIET).world_size == 1
    assert build_trainer(options_of("trainer=ddp", "trainer.devices=2"), **QUIET).world_size == 2


@pytest.mark.parametrize("left", [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"SLURM_PROCID": "3"}, {"RANK": "1", "WORLD_SIZE": "2"}])
def test_the_trainer_alone_says_which_process_is_the_first(monkeypatch: pytest.MonkeyPatch, left: dict[str, str]) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    rank_zero_only.rank = 1  # as Lightning's import has it from that
    trainer = build_trainer(options_of(), **QUIET)
    assert (rank_zero_only.rank, trainer.global_rank, trainer.is_global_zero) == (0, 0, True)


def test_processes_of_torchrun_do_not_train_one_run_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        KitsError, match="torchrun started 2 processes, and each of them would train the same run; add trainer=ddp"
    ):
        build_trainer(options_of(), **QUIET)


def test_lightning_starts_its_processes_whatever_another_program_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    options = options_of("trainer=ddp", "trainer.devices=2")
    trainer = build_trainer(options, **QUIET)
    assert (trainer.global_rank, trainer.world_size) == (0, 2)
    assert not trainer.strategy.cluster_environment.creates_processes_externally
    assert not {"RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT"} & set(os.environ)
    # As a process that one with this test's parent's number has started.
    monkeypatch.setenv(STARTED_BY, str(os.getppid()))
    monkeypatch.setenv("LOCAL_RANK", "1")
    trainer = build_trainer(options, **QUIET)
    assert (trainer.global_rank, rank_zero_only.rank) == (1, 1)
    assert trainer.strategy.cluster_environment.creates_processes_externally


def test_synchronized_statistics_keep_the_network_as_it_is() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"freeze_statistics": False, "freeze_stages": 0, "slices_at_once": None, "checkpointing": False}
    encoder = Encoder2d(backbone="test_efficientnet", weights=None, out_indices=[0, 1], **options).eval()
    slices = torch.rand(2, 3, 32, 32)
    before, names = encoder(slices), list(encoder.state_dict())
    layers = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    converted = with_synchronized_statistics(encoder).eval()
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == layers > 0
    assert list(converted.state_dict()) == names
    for expected, found in zip(before, converted(slices), strict=True):
        torch.testing.assert_close(found, expected)


def test_synchronized_statistics_need_gpus() -> None:
    options = training_options([*COARSE, "trainer.sync_batchnorm=true"])
    trainer = build_trainer(options, **QUIET, accelerator="cpu", precision="32-true")  # as auto finds it where there is no GPU
    with pytest.raises(KitsError, match=r"trainer\.sync_batchnorm=true: torch synchronizes statistics on GPUs only"):
        adapt_network(CoarseModule(options, pretrained=False), trainer)


def test_one_process_alone_hears_itself() -> None:
    counts = torch.ones(3, requires_grad=True)
    assert global_sum(counts) is counts
    assert list(gather({"b": 1, "a": 2}).items()) == [("a", 2), ("b", 1)]
