"""What a GPU or several processes would do, as far as that can be held without one: types, counts, and who is asked how often."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from kits.bench.training_step import training_flops
from kits.config.composing import compose
from kits.core.errors import KitsError
from kits.inference.devices import LEAST_WINDOW, Fallback, is_out_of_memory
from kits.models import build_network
from kits.runs import checkpointing
from kits.runs.checkpointing import Last, Stopped
from kits.runs.resuming import Start
from kits.train import train
from kits.training import datamodule, modules
from kits.training.callbacks import ProgressBar
from kits.training.fitting import adapt_network
from kits.training.trainer import build_trainer
from tests.conftest import data_of, training_options
from tests.unit.test_distributed import QUIET, options_of
from tests.unit.test_runs import FINE, TINY
from tests.unit.test_stages import COARSE, batches, fit, module_of, trainer_of

GPU = torch.device("meta")  # only its type is asked


@pytest.mark.parametrize("stage", ["coarse", "fine"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_halves_what_a_gpu_keeps_for_the_backward_pass(
    stage: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp.autocast_mode.torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    config = compose("train", [f"stage={stage}"])["model"]

    def kept(half: bool) -> int:
        """Bytes."""
        seen = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal seen
            seen += tensor.nbytes * (tensor.dim() == 5 or tensor.dim() == 4)  # feature maps, not weights
            return tensor

        with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
            network: Any = build_network(config, pretrained=False).train()
            image = torch.rand(1, 1, 12, 64, 64)
            with (
                torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
                torch.autocast("cuda", dtype, enabled=half),
            ):
                network.training_logits(image)
        return seen

    assert 0.4 < kept(True) / kept(False) < 0.7


def test_a_training_counts_its_flops_by_the_forward_pass() -> None:
    """torch counts the backward pass of grouped convolutions as if they were dense ones."""
    network = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
    image = torch.rand(1, 64, 16, 16, requires_grad=True)
    by_hand = 3 * 2 * 64 * 9 * 16 * 16
    assert training_flops(lambda: network(image)) == by_hand
    with FlopCounterMode(display=False) as counter:
        network(image).sum().backward()
    assert counter.get_total_flops() > 5 * by_hand  # should torch mend this, the bench can count everything


@pytest.mark.parametrize(
    "text",
    [
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_lack_of_memory_in_the_words_of_cudnn_takes_smaller_windows(text: str) -> None:
    def attempt(device: torch.device, window: int) -> int:
        if window > 12:
            raise RuntimeError(text)
        return window

    assert is_out_of_memory(RuntimeError(text))
    fallback = Fallback([], GPU, 48, "fine")
    assert fallback.run(attempt) == 12
    assert fallback.device == GPU
    assert fallback.warnings == ["the fine stage: meta ran out of memory; went on with windows of 12 slices, not 48"]


def test_a_gpu_that_cudnn_does_not_know_is_not_taken_for_a_full_one() -> None:
    def attempt(device: torch.device, window: int) -> None:
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    with pytest.raises(KitsError, match=r"^the fine stage: meta cannot compute it in small windows either \(GET was unable"):
        Fallback([], GPU, 24, "fine").run(attempt)


def test_a_network_in_training_stays_on_its_device() -> None:
    class Moved(nn.Module):
        def to(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("moved")

    def attempt(device: torch.device, window: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(KitsError, match=rf"memory ran out, even with windows of {LEAST_WINDOW} slices on the META; [^\n]*$"):
        Fallback([Moved()], GPU, 24, "coarse", stays=True).run(attempt)


def test_a_validation_without_memory_says_so_and_the_training_goes_on(
    prepared: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = modules.build_network(prepared["model"], pretrained=False).__class__.forward
    seen = []

    def greedy(self: nn.Module, image: Tensor) -> Tensor:
        if image.shape[2] > LEAST_WINDOW and not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(image.shape[2])
        return forward(self, image)

    monkeypatch.setattr(modules.build_network(prepared["model"], pretrained=False).__class__, "forward", greedy)
    train(training_options(prepared))
    said = capsys.readouterr().out
    assert set(seen) >= {LEAST_WINDOW}
    # Each validation begins with the window that it was asked for.
    told = (
        "validation: the coarse stage: cpu ran out of memory; went on with windows of 6 slices, not 48; this epoch's scores are"
    )
    assert said.count(told) == prepared["trainer"]["max_epochs"]


@pytest.fixture
def prepared(kits_tree: Any, tmp_path: Any) -> dict:
    """The configuration of a tiny training of the coarse stage, its cache prepared."""
    from tests.conftest import prepare

    places = [f"data.root={kits_tree}", f"data.cache={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    config = compose("train", [*TINY, *places, "trainer.max_epochs=2"])
    prepare(config["data"])
    return config


@pytest.mark.parametrize("text", ["[enforce fail] DefaultCPUAllocator: can't allocate memory", "CUDA out of memory. Tried 2 GiB"])
def test_a_step_without_memory_is_one_line_that_names_what_saves_some(prepared: dict, text: str, monkeypatch) -> None:
    def step(*_: Any) -> None:
        raise RuntimeError(f"{text}\nmore")

    monkeypatch.setattr(modules.CoarseModule, "training_step", step)
    with pytest.raises(KitsError) as caught:
        train(training_options(prepared))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("cpu: memory ran out in step 1 (")
    assert line.endswith("give a smaller sampling.patch or sampling.batch_size, or trainer.precision=bf16-mixed")


def test_the_first_lines_name_device_precision_and_workers(prepared: dict, capsys: pytest.CaptureFixture[str]) -> None:
    train(training_options(prepared))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "coarse: 3 training and 1 validation cases",
        f"0 loader workers on cpu, {torch.get_num_threads()} threads; precision 32",
    ]


def test_values_are_exchanged_as_one_tensor_on_logged_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, exchanged = trainer_of(log_every_n_steps=2), []
    module = module_of([*COARSE, "loss=dice_ce"])

    def reduce(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        if tensor.dim():  # and not Lightning's question whether to stop
            exchanged.append(len(tensor))
        return tensor

    monkeypatch.setattr(trainer.strategy, "reduce", reduce)
    fit(trainer, module, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert exchanged == [3, 3]  # total, dice and ce


def test_another_process_whose_loss_is_no_number_ends_this_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(log_every_n_steps=1)
    monkeypatch.setattr(trainer.strategy, "reduce", lambda tensor, *_, **__: tensor * torch.nan)
    with pytest.raises(KitsError, match=r"^train/loss: nan at step 0"):
        fit(trainer, module_of(COARSE), 0.1)


def test_labels_travel_as_bytes_and_learn_the_same() -> None:
    """The loss widens them on the device that computes it."""
    losses = []
    for dtype in (torch.uint8, torch.int64):
        for overrides in (COARSE, FINE):
            module = module_of(overrides)
            module.log_losses = lambda parts, size: parts["total"]
            batch = {name: value.to(dtype) if name == "label" else value for name, value in next(iter(batches(0.3))).items()}
            losses.append(float(module.training_step(batch, 0).detach()))
    assert losses[:2] == losses[2:]


def test_a_gpu_gets_pinned_batches_from_its_share_of_the_cores(prepared: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(prepared)
    assert not data.train_dataloader().pin_memory
    assert next(iter(data.train_dataloader()))["label"].dtype == torch.uint8
    cuda = SimpleNamespace(root_device=torch.device("cuda"))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, strategy=cuda)
    assert data.train_dataloader().pin_memory
    data.options = training_options({**prepared, "data": {**prepared["data"], "loader_workers": "auto"}})
    for cores, gpus, wanted in ((64, 8, 8), (64, 1, 12), (4, 8, 1), (2, 0, 0), (16, 0, 1)):
        monkeypatch.setattr(datamodule.os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        data.trainer = SimpleNamespace(num_devices=gpus, strategy=cuda) if gpus else None
        assert data.workers() == wanted


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_are_not_sent_around(frozen: bool) -> None:
    asked = options_of("trainer=ddp", "trainer.devices=2", f"model.freeze_statistics={frozen}")
    options = build_trainer(asked, **QUIET).strategy._ddp_kwargs
    (sent,) = (value for name, value in options.items() if name.endswith("_buffers"))
    assert sent is not frozen


class Ranks:
    """Lightning's trainer of two processes as `Last` sees it; each step takes `seconds`."""

    world_size, val_check_batch, accumulate_grad_batches, sanity_checking = 2, None, 1, False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, last: Last) -> None:
        self.seconds, self.last, self.global_step, self.questions, self.now = seconds, last, 0, [], 0.0
        self.lightning_module = SimpleNamespace(print=print)
        self.strategy = SimpleNamespace(
            root_device="cpu", reduce=lambda tensor, reduce_op: tensor, reduce_boolean_decision=self.decide
        )
        monkeypatch.setattr(checkpointing.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(last, "save", lambda trainer, place: None)

    def decide(self, decision: bool, **_: Any) -> bool:
        self.questions.append(self.global_step)
        return decision

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.global_step += 1
            self.now += self.seconds
            self.last.on_train_batch_start(self, None, None, self.global_step)  # type: ignore[arg-type]


def last_of(folder: Any, every_steps: int | None = None) -> Last:
    often = [f"callbacks.checkpoint.every_steps={every_steps or 'null'}", "callbacks.checkpoint.every_minutes=null"]
    return Last(Start(folder), "", options_of(*often))


@pytest.mark.parametrize(("seconds", "apart"), [(0.1, 10), (1.0, 5), (30.0, 1)])
def test_processes_ask_one_another_every_ten_steps_or_five_seconds(
    seconds: float, apart: int, tmp_path: Any, monkeypatch
) -> None:
    ranks = Ranks(monkeypatch, seconds, last_of(tmp_path))
    ranks.last._asked_at = 0.0
    ranks.go(41)
    assert {later - before for before, later in zip(ranks.questions, ranks.questions[1:], strict=False)} == {apart}


def test_a_signal_stops_all_at_the_next_question_and_steps_that_are_due_are_saved_at_once(tmp_path: Any, monkeypatch) -> None:
    ranks = Ranks(monkeypatch, 0.1, last_of(tmp_path, every_steps=3))
    ranks.last._asked_at = 0.0
    ranks.last._saved_step = 0
    ranks.go(4)
    assert 3 in ranks.questions
    ranks.last._signal = signal.SIGUSR1
    with pytest.raises(Stopped):
        ranks.go(12)


def test_bars_are_drawn_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    bar = ProgressBar()
    monkeypatch.setattr("kits.training.callbacks.time.monotonic", lambda: now)
    drawn = []
    for step in range(1, 101):
        now += 0.1
        if bar._should_update(step, 1000):
            drawn.append(step)
    assert len(drawn) == pytest.approx(5, abs=1)
    assert bar._should_update(1000, 1000)


def test_compiling_is_refused_where_it_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KitsError, match=r"^trainer\.compile=true: torch\.compile needs a C\+\+ compiler, which is not here"):
        adapt_network(module_of([*COARSE, "trainer.compile=true"]), trainer_of())
    module = module_of(COARSE)
    adapt_network(module, trainer_of())
    assert "training_logits" not in vars(module.network)


@pytest.mark.slow
def test_a_compiled_training_learns_the_same(prepared: dict) -> None:
    losses = []
    for compiled in (False, True):
        module = module_of([*COARSE, f"trainer.compile={compiled}"])
        adapt_network(module, trainer_of())
        module.log_losses = lambda parts, size: parts["total"]
        loss = module.training_step(next(iter(batches(0.3))), 0)
        loss.backward()
        losses.append((float(loss.detach()), sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
