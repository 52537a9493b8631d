"""The benches that train, in miniature: what they need of the configuration is there, and they measure something."""

from __future__ import annotations

import importlib

import pytest

from kits.bench.__main__ import BENCHES
from kits.config.composing import compose


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "least"),
    [
        ("ddp", ["rounds=1", "steps=1", "sampling.patch=[4,32,32]"], 0),
        ("logging", ["pairs=1", "trainer.log_every_n_steps=2", "sampling.patch=[4,32,32]", "scan.shape=[8,64,64]"], -1),
        ("model", ["rounds=1", "patch=[4,32,32]"], 0),
    ],
)
def test_a_bench_runs(name: str, overrides: list[str], least: float) -> None:
    config = compose(f"bench_{name}", overrides)
    measured = importlib.import_module(f"kits.bench.{BENCHES[name]}").measure(config)
    assert set(measured) == set(config["bars"])
    assert all(value > least for value in measured.values())
