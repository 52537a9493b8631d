"""A training step of the fine stage against plain 2D passes (CPU) or matrix products (GPU)."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from kits.bench.timing import in_turn
from kits.config.schema import parse
from kits.config.schema.loss import Loss
from kits.core.errors import KitsError
from kits.models import build_network
from kits.models.memory import keep_freed_memory
from kits.training.losses import build_loss, parallel_loss


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure on the device that `conf/bench_model.yaml` names; only a CPU's figure has a bar."""
    if config["device"] == "cuda":
        if not torch.cuda.is_available():
            raise KitsError("device=cuda: torch sees no GPU here; take device=cpu")
        measure_cuda(config)
        return {}
    if config["device"] != "cpu":
        raise KitsError(f"device={config['device']}: no such device; take cpu or cuda")
    return measure_cpu(config)


class FineStep:
    """A training step of the fine network on one random patch, and its encoders' pass of the same slices."""

    def __init__(self, config: dict[str, Any], device: str) -> None:
        torch.manual_seed(config["seed"])
        self.network: Any = build_network(config["model"], pretrained=False).to(device).train()
        self.logits_of: Any = self.network.training_logits
        self.loss = build_loss(parse(Loss, config["loss"]))
        self.weight = float(config["parallel_weight"])
        self.optimizer = torch.optim.Adam(self.network.parameters(), config["optimizer"]["lr"])
        shape = [config["batch_size"], *config["patch"]]
        self.image = torch.rand(shape, device=device).unsqueeze(1) * 2 - 1
        self.label = torch.randint(0, config["model"]["classes"], shape, device=device)

    def train(self) -> None:
        """Forward, loss of the parallel training, backward, optimizer."""
        self.optimizer.zero_grad()
        fused, sources = self.logits_of(self.image)
        parallel_loss(self.loss, fused, sources, self.label, self.weight)["total"].backward()
        self.optimizer.step()

    def encoders(self) -> None:
        """Forward and backward of each encoder alone: what the same slices cost in 2D."""
        for source in self.network.sources:
            maps = source.encoder(source.mapping(self.image))  # all planes of the bench are axial
            torch.stack([scale.float().mean() for scale in maps]).sum().backward()  # its gradient reaches every map
        self.network.zero_grad()


def measure_cpu(config: dict[str, Any]) -> dict[str, float]:
    """Measure seconds of a step over those of the plain passes between them, the median of the rounds."""
    torch.set_num_threads(config["threads"])
    keep_freed_memory()  # as every training on a CPU does
    step = FineStep(config, "cpu")
    step.train()
    step.encoders()
    taken = in_turn({"plain": step.encoders, "whole": step.train}, config["rounds"])
    rounds = list(zip(taken["whole"], taken["plain"], strict=True))
    for number, (whole, plain) in enumerate(rounds, 1):
        print(f"round {number}: step {whole:.2f} s, plain 2D passes {plain:.2f} s, ratio {whole / plain:.3f}")
    return {"step": median(whole / plain for whole, plain in rounds)}


def measure_cuda(config: dict[str, Any]) -> None:
    """Print bf16 steps a second, peak memory, the share of matrix products' peak, torch.compile's gain."""
    step = FineStep(config, "cuda")

    def train() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            step.train()

    flops = training_flops(lambda: step.logits_of(step.image))
    torch.cuda.reset_peak_memory_stats()
    rate = per_second(train, config["gpu_steps"])
    memory = torch.cuda.max_memory_allocated() / 2**30
    size = config["gpu_matrix"]
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    peak = 2 * size**3 * per_second(lambda: torch.mm(left, right), config["gpu_steps"])
    print(f"{torch.cuda.get_device_name()}: {rate:.2f} steps a second, peak memory {memory:.2f} GiB")
    share = flops * rate / peak
    print(f"{flops / 1e9:.0f} GFLOP a step, {100 * share:.2f} % of {peak / 1e12:.0f} TFLOP/s matrix products")
    step.logits_of = torch.compile(step.network.training_logits)
    compiled = per_second(train, config["gpu_steps"])
    print(f"torch.compile: {compiled:.2f} steps a second, {compiled / rate:.2f} times those without it")


def training_flops(forward: Callable[[], object]) -> int:
    """Count floating point operations of a forward and a backward pass, which takes twice the forward's.

    Only the forward pass is counted: in the backward pass torch takes grouped convolutions for dense ones.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        forward()
    return 3 * int(counter.get_total_flops())


def per_second(call: Callable[[], object], times: int) -> float:
    """Measure calls a second on the GPU, after three to warm up."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return times / (time.perf_counter() - began)
