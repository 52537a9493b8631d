"""The learning rate goes as its name says, over the steps that the training has."""

import itertools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from kits.config import choices_of
from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.optimizer import Scheduler
from kits.core.errors import KitsError
from kits.training import optimizers
from kits.training.optimizers import DECAYS


def optimizer(lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def build_scheduler(options: dict, own: torch.optim.Optimizer, steps: float) -> dict:
    return optimizers.build_scheduler(parse(Scheduler, options, "scheduler"), own, steps, epochs=1)


def rates(options: dict, steps: int, lr: float = 0.1) -> list[float]:
    """The rate of each step, by the scheduler that Lightning would step."""
    own = optimizer(lr)
    scheduler = build_scheduler(options, own, steps)["scheduler"]
    found = []
    for _ in range(steps):
        found.append(own.param_groups[0]["lr"])
        own.step()
        scheduler.step()
    return found


def test_the_files_are_the_schedulers() -> None:
    assert set(choices_of("scheduler")) == {*DECAYS, "plateau", "own"}
    for name in (*DECAYS, "plateau"):
        assert compose("train", ["stage=coarse", f"scheduler={name}"])["scheduler"]["name"] == name


def test_cosine_is_torchs_own_and_ends_where_it_is_told() -> None:
    own = optimizer()
    reference = CosineAnnealingLR(own, T_max=20, eta_min=0.01)
    expected = []
    for _ in range(20):
        expected.append(own.param_groups[0]["lr"])
        own.step()
        reference.step()
    assert rates({"name": "cosine", "warmup": 0.0, "final": 0.1}, 20) == pytest.approx(expected)


def test_poly_is_nnunets_power() -> None:
    assert rates({"name": "poly", "warmup": 0.0, "power": 0.9}, 10, 0.01) == pytest.approx(
        [0.01 * (1 - step / 10) ** 0.9 for step in range(10)]
    )


@pytest.mark.parametrize("name", ["constant", "cosine", "poly"])
def test_warmup_rises_to_the_whole_rate_and_every_step_learns(name: str) -> None:
    options = {**compose("train", ["stage=coarse", f"scheduler={name}"])["scheduler"], "warmup": 0.25}
    found = rates(options, 40)
    assert 0 < found[0] < 0.02
    assert all(later > earlier for earlier, later in itertools.pairwise(found[:11]))
    assert found[10] == pytest.approx(max(found)) == pytest.approx(0.1)


def test_the_plateau_waits_for_the_validation_score() -> None:
    own = optimizer()
    built = build_scheduler({"name": "plateau", "factor": 0.5, "patience": 1, "min_lr": 1e-3}, own, 10)
    assert (built["monitor"], built["interval"]) == ("val/score", "epoch")
    for score in (0.5, 0.6, 0.6):
        built["scheduler"].step(score)
    assert own.param_groups[0]["lr"] == 0.1
    built["scheduler"].step(0.6)
    assert own.param_groups[0]["lr"] == 0.05


def test_the_scheduler_and_its_state_are_plain() -> None:
    scheduler = build_scheduler({"name": "cosine", "warmup": 0.1, "final": 0.0}, optimizer(), 10)["scheduler"]
    assert isinstance(scheduler, LambdaLR)
    assert scheduler.state_dict()["lr_lambdas"] == [None], "no code in a checkpoint"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"name": "step"},
            "scheduler.name=step: is chosen as a whole; give scheduler=... with one of constant",
        ),
        ({"name": "cosine", "warmup": 0.0, "end": 1.0}, "scheduler.end: no such key; there are final, name, warmup"),
        ({"name": "poly", "warmup": 0.0}, "scheduler.power: no value given; give a number above 0"),
    ],
)
def test_what_cannot_be_is_named(options: dict, words: str) -> None:
    with pytest.raises(KitsError) as caught:
        build_scheduler(options, optimizer(), 10)
    assert words in str(caught.value)


def test_a_time_limit_that_is_ahead_of_the_steps_counts() -> None:
    over = 0.0
    rate = optimizers.rate_by_step(lambda progress: optimizers.cosine(progress, final=0.0), 0.0, 100, lambda: over)
    assert rate(50) == pytest.approx(0.5)
    over = 0.75
    assert rate(50) == pytest.approx(optimizers.cosine(0.75, final=0.0))
    over = 1.0
    assert rate(50) == pytest.approx(0.0)


def test_the_clock_is_that_of_max_time() -> None:
    trainer = pl.Trainer(accelerator="cpu", max_time="00:00:00:40", logger=False, enable_progress_bar=False)
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
    timer.load_state_dict({"time_elapsed": {"train": 10.0}})  # as a resumed run has it
    elapsed = optimizers.clock_of(trainer)
    assert elapsed is not None
    assert elapsed() == pytest.approx(0.25)
    assert optimizers.clock_of(pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)) is None
