"""Precision and device that `auto` chooses, what is warned of and what is refused; a GPU is what torch is made to say of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from kits.core.errors import KitsError
from kits.inference import devices
from kits.inference.devices import TRAINED, cpu_gain, described, pick_device, pick_precision
from kits.training.fitting import choose_precision
from tests.conftest import training_options

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch):
    """A processor that computes bf16 so many times as fast as 32 bits."""

    def give(value: float) -> None:
        monkeypatch.setattr(devices, "cpu_gain", lambda: value)

    return give


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch):
    """A GPU of this compute capability."""

    def give(*version: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: version)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Some GPU")

    return give


def chosen(precision: str, accelerator: str = "cpu") -> str:
    """What a training computes in that asks for this."""
    asked = ["stage=coarse", f"trainer.precision={precision}", f"trainer.accelerator={accelerator}"]
    return choose_precision(training_options(asked)).trainer.precision


def test_auto_takes_half_precision_on_processors_that_compute_it_faster(gain) -> None:
    gain(1.4)
    assert pick_precision("auto", CPU) == "bf16"
    assert chosen("auto") == "bf16-mixed"
    gain(0.07)
    assert pick_precision("auto", CPU) == "32"
    assert chosen("auto") == "32-true"
    assert pick_precision("bf16", CPU) == "bf16"  # asked for by hand


@pytest.mark.parametrize(
    ("version", "best"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "16"), ((7, 0), "16"), ((6, 1), "32")]
)
def test_auto_takes_the_half_precision_that_a_gpu_has_units_for(version: tuple[int, int], best: str, capability) -> None:
    capability(*version)
    assert pick_precision("auto", CUDA) == best
    assert pick_precision("auto", MPS) == "32"


def test_every_choice_and_every_emulation_is_told(gain, capability) -> None:
    gain(1.4)
    assert described(CPU, "bf16", chosen=True).endswith("; precision bf16, as bf16 is 1.4 times as fast as 32 bits here")
    assert described(CPU, "bf16", chosen=False).endswith("; precision bf16")
    gain(0.0625)
    slow = "this processor computes bf16 16.0 times slower than 32 bits"
    assert described(CPU, "32", chosen=True) == f"cpu, {torch.get_num_threads()} threads; precision 32, as {slow}"
    assert described(CPU, "32", chosen=False).endswith("; precision 32")
    assert described(CPU, "bf16", chosen=False).endswith(f"precision bf16\nwarning: {slow}; precision=auto takes the fastest")
    capability(7, 5)
    units = "a GPU of compute capability 7.5 has no units for bf16"
    assert described(CUDA, "16", chosen=True) == f"cuda (Some GPU); precision 16, as {units}"
    assert described(CUDA, "16", chosen=False) == "cuda (Some GPU); precision 16"
    assert f"\nwarning: {units}" in described(CUDA, "bf16", chosen=False)
    assert described(MPS, "32", chosen=True) == "mps; precision 32"


@pytest.mark.parametrize(("precision", "device"), [("16", CPU), ("16", MPS), ("bf16", MPS)])
def test_what_a_device_cannot_compute_is_refused(precision: str, device: torch.device) -> None:
    with pytest.raises(KitsError, match=r"^trainer\.precision: [^\n]*; take trainer\.precision=auto$"):
        pick_precision(precision, device, "trainer.precision")


def test_precisions_that_no_validation_survives_are_refused() -> None:
    with pytest.raises(KitsError, match=r"^trainer\.precision=bf16-true: give one of auto, 32-true, bf16-mixed, 16-mixed"):
        chosen("bf16-true")


def test_training_and_prediction_take_the_same_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == MPS
    assert chosen("auto", "auto") == chosen("auto", "gpu") == "32-true"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == CPU


def test_a_gpu_that_is_not_there_is_named_with_how_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        KitsError, match=r"^device=cuda:99: cannot be used here \(torch [\w.+]+ sees 2 GPU\(s\), counted from 0\); take "
    ):
        pick_device("cuda:99")


def test_the_measurement_leaves_threads_and_random_numbers_alone() -> None:
    cpu_gain.cache_clear()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert cpu_gain() > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variable is for x86")
def test_a_processor_without_units_for_bf16_is_found_out() -> None:
    masked = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    show = [sys.executable, "-c", "from kits.inference.devices import cpu_gain; print(cpu_gain())"]
    there = subprocess.run(show, env=os.environ | masked, capture_output=True, text=True, check=True).stdout
    assert float(there) < 0.5
    if torch.cpu._is_avx512_bf16_supported() and not set(masked) & set(os.environ):
        assert cpu_gain() > 1


def test_lightning_has_a_name_for_every_precision() -> None:
    assert list(TRAINED.values()) == list(devices.TYPES)
