"""The demo and the benchmarks: a step that fails and a bar that falls short end in exit code one."""

import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kits.bench.__main__ import BENCHES
from kits.bench.__main__ import main as bench
from kits.bench.rates import Passes
from kits.bench.timing import judge
from kits.config.composing import checked, compose
from kits.config.schema.benches import Bar
from kits.core.errors import KitsError
from kits.workflows.step import run_process


def test_every_step_is_a_command_whose_overrides_compose() -> None:
    for step in compose("demo", ["output=somewhere"])["steps"]:
        name, *overrides = step.split()
        assert compose(name, overrides)


def test_bars_are_ratios_and_a_shortfall_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    bars = {"kidney": Bar(least=0.9), "minutes": Bar(most=15)}
    judge({"kidney": 0.9, "minutes": 7.5}, bars)
    shown = capsys.readouterr().out
    assert "ratio 1.000" in shown
    assert "ratio 2.000" in shown
    with pytest.raises(KitsError, match="minutes"):
        judge({"kidney": 0.95, "minutes": 15.1}, bars)
    with pytest.raises(KitsError, match="kidney"):
        judge({"kidney": float("nan"), "minutes": 1}, bars)
    with pytest.raises(KitsError, match="minutes"):
        judge({"kidney": 0.95, "minutes": float("nan")}, bars)


def test_nothing_at_all_is_as_far_below_a_bar_as_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    judge({"wrong": 0.0}, {"wrong": Bar(most=0.5)})
    assert "0.0000  bar   <= 0.5  ratio inf" in capsys.readouterr().out


def test_a_bar_without_a_figure_is_named_and_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    judge({"kidney": 0.95}, {"kidney": Bar(least=0.9), "times_nnunet": Bar(least=50)})
    assert "times_nnunet not measured" in capsys.readouterr().out


def test_a_bar_of_0_is_refused_as_nothing_is_a_ratio_to_it() -> None:
    with pytest.raises(KitsError, match=r"bars\.kidney\.least=0: give a number above 0"):
        checked("demo", ["bars.kidney.least=0"])


def test_the_work_of_a_networks_passes_is_counted_by_hand() -> None:
    network, image = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False)), torch.rand(2, 3, 16, 20)
    counted, timed = Passes(FlopCounterMode(display=False)), Passes(None)
    for hooks in (counted, timed):
        handles = [network.register_forward_pre_hook(hooks.before), network.register_forward_hook(hooks.after)]
        for _ in range(3):
            network(image)
        for handle in handles:
            handle.remove()
    assert counted.gflop == pytest.approx(3 * 2 * (2 * 16 * 20 * 8 * 3 * 9) / 1e9)  # a multiplication and an addition each
    assert timed.seconds > 0
    assert timed.gflop == 0


def test_a_step_is_shown_as_a_reader_would_type_it_and_its_failure_ends_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KitsError, match=r"kits\.prepare ended with exit code 1"):
        run_process("prepare", ["data.root=nowhere"])
    shown = capfd.readouterr()
    assert "$ python -m kits.prepare data.root=nowhere" in shown.out
    assert shown.err.count("\n") == 1
    assert "nowhere: no such folder" in shown.err


def test_an_unknown_benchmark_names_the_known_ones(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "nothing"])
    with pytest.raises(SystemExit) as caught:
        bench()
    assert caught.value.code == 2
    assert "demo" in capsys.readouterr().err
    assert "demo" in BENCHES
