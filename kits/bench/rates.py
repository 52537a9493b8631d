"""The computation of a scan's networks: how much, how fast, and how fast the cores could be."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kits.bench.timing import seconds
from kits.inference.segmenter import Segmenter
from kits.volume import Volume

# The peak is that of a 3 x 3 convolution of so many channels, of slices that stay in the cores' caches, the fastest of so many.
CHANNELS, SLICES, SIDE, REPEATS = 128, 8, 32, 20


def measure_rates(segmenter: Segmenter, volume: Volume, repeats: int) -> dict[str, float]:
    """Measure and print GFLOP/s of both stages' networks alone, as shares of the cores' peak.

    A multiplication and an addition are two FLOP. Slices that windows repeat count as often as they are computed.
    """
    counted = passes(segmenter, volume, count=True)
    timed = [passes(segmenter, volume, count=False) for _ in range(repeats)]
    peak = convolution_peak()
    shares = {}
    for stage, one in counted.items():
        gflop, least = one.gflop, min(run[stage].seconds for run in timed)
        shares[f"{stage}_of_peak"] = gflop / least / peak
        print(
            f"{stage} networks: {gflop:.1f} GFLOP a scan in {least:.2f} s, {gflop / least:.0f} GFLOP/s,"
            f" {gflop / least / peak:.2f} of the cores' convolution peak of {peak:.0f} GFLOP/s",
            flush=True,
        )
    return shares


class Passes:
    """Hooks that add up FLOP, or the time, of a network's passes."""

    def __init__(self, counter: FlopCounterMode | None) -> None:
        self.counter, self.gflop, self.seconds, self._began = counter, 0.0, 0.0, 0.0

    def before(self, network: nn.Module, given: Any) -> None:
        """Note that a pass begins."""
        if self.counter is not None:
            self.counter.__enter__()
        self._began = time.perf_counter()

    def after(self, network: nn.Module, given: Any, output: Any) -> None:
        """Note that a pass ends."""
        self.seconds += time.perf_counter() - self._began
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.gflop += self.counter.get_total_flops() / 1e9


def passes(segmenter: Segmenter, volume: Volume, *, count: bool) -> dict[str, Passes]:
    """Segment the volume once with hooks on both stages' networks, which count FLOP or take the time."""
    networks: dict[str, Any] = {"coarse": segmenter.coarse.networks, "fine": segmenter.fine.networks}
    hooks = {stage: Passes(FlopCounterMode(display=False) if count else None) for stage in networks}
    with ExitStack() as handles:
        for stage, hook in hooks.items():
            for network in networks[stage]:
                handles.enter_context(network.register_forward_pre_hook(hook.before))
                handles.enter_context(network.register_forward_hook(hook.after))
        segmenter.segment(volume)
    return hooks


@torch.inference_mode()
def convolution_peak() -> float:
    """Measure GFLOP/s of a large plain convolution in float32, the fastest of some."""
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(memory_format=torch.channels_last)
    image = torch.rand(SLICES, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    return 2 * image.numel() * CHANNELS * 9 / min(seconds(lambda: convolution(image)) for _ in range(REPEATS)) / 1e9
