"""Device and precision of networks, and what gives way when memory runs out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional

from kits.config import one_line
from kits.core.errors import KitsError

# By its name in a prediction the type of autocast, and by the name that Lightning has for it that in a prediction.
TYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
TRAINED = {"32-true": "32", "bf16-mixed": "bf16", "16-mixed": "16"}
AUTO = "auto"
# NVIDIA's compute capability from which a GPU multiplies matrices of this type.
CAPABILITY = {"bf16": (8, 0), "16": (7, 0)}
T = TypeVar("T")
# Fewer slices hardly see their neighbors.
LEAST_WINDOW = 6
# How torch and its libraries say so where the exception's type does not.
SAID = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
# What cuDNN says without memory for its work, and also on a GPU that it has no kernel for: a smaller window tells which.
UNCLEAR = ("unable to find an engine", "FIND was unable", "Unable to find a valid cuDNN algorithm")


def pick_device(name: str) -> torch.device:
    """Pick the device of this name; `auto` is the first GPU, NVIDIA's or Apple's, or the CPU.

    Raises:
        KitsError: torch does not know the name, or cannot use that device here.
    """
    if name == AUTO:
        gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
        return torch.device(gpu or "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
            raise RuntimeError(f"torch {torch.__version__} sees {count} GPU(s), counted from 0")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise KitsError(f"device={name}: cannot be used here ({reason}); take auto, cpu, cuda or mps") from error
    return device


def pick_precision(asked: str, device: torch.device, key: str = "precision") -> str:
    """Pick `32`, `bf16` or `16` as asked for; for `auto` the fastest of them on this device.

    Args:
        key: how the command line calls it.

    Raises:
        KitsError: this device cannot compute in what is asked for.
    """
    if asked == AUTO:
        return "32" if device.type == "mps" else next((half for half in ("bf16", "16") if not slowness(half, device)), "32")
    if device.type == "cpu" and asked == "16":
        raise KitsError(f"{key}: 16 bits are for a GPU; take {key}=auto")
    if device.type == "mps" and asked != "32":
        raise KitsError(f"{key}: Apple's GPUs refuse transposed 3D convolutions in half precision; take {key}=auto")
    return asked


def slowness(half: str, device: torch.device) -> str | None:
    """Say why a half precision is slower than 32 bits on this device; None where it is faster."""
    if device.type == "cuda":
        have = torch.cuda.get_device_capability(device)
        short = f"a GPU of compute capability {have[0]}.{have[1]} has no units for {half}"
        return short if have < CAPABILITY[half] else None
    if half == "16":
        return "processors have no units for 16"
    gain = cpu_gain()
    return f"this processor computes {half} {1 / gain:.1f} times slower than 32 bits" if gain < 1 else None


@cache
def cpu_gain() -> float:
    """Measure how many times as fast as in 32 bits a 3D convolution is in bf16, both ways.

    Measured: flags of the processor do not say what torch's kernels make of them, nor what the environment forbids them
    (ONEDNN_MAX_CPU_ISA). Without units for it bf16 is emulated, about 15 times slower with AVX2 and 2.5 times with AVX512. In
    processor time of one thread, which other programs hardly change; without random numbers, which a seeded run would miss.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = {precision: _seconds(TYPES[precision]) for precision in ("32", "bf16")}
    finally:
        torch.set_num_threads(threads)
    return seconds["32"] / seconds["bf16"]


def _seconds(dtype: torch.dtype) -> float:
    """Measure the least processor time of three convolutions, after one that builds the kernels."""
    volume, kernels = torch.ones(4, 32, 4, 16, 16, requires_grad=True), torch.ones(32, 32, 3, 3, 3, requires_grad=True)
    times = []
    for _ in range(4):
        began = time.thread_time()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            result = functional.conv3d(volume, kernels, padding=1)
        result.float().sum().backward()
        times.append(time.thread_time() - began)
    return min(times[1:])


def described(device: torch.device, precision: str, *, chosen: bool) -> str:
    """Name device and precision in a line, with a warning in a second line where they are slow.

    Args:
        chosen: by `auto`; then the line says why.
    """
    name = f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    line = f"{name} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else name
    line += f"; precision {precision}"
    half = "bf16" if chosen else precision
    slow = slowness(half, device) if half != "32" and device.type != "mps" else None
    if chosen:
        faster = (
            f"bf16 is {cpu_gain():.1f} times as fast as 32 bits here" if (device.type, precision) == ("cpu", "bf16") else None
        )
        return f"{line}, as {slow or faster}" if slow or faster else line
    return f"{line}\nwarning: {slow}; precision=auto takes the fastest" if slow else line


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory was what failed, as far as the text tells (see UNCLEAR)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in (*SAID, *UNCLEAR))


class Fallback:
    """A stage's device and window (slices), which give way as far as they must, for one case.

    Attributes:
        device, window: as they are now.
        stays: the network is in training, and must stay where it is.
        warnings: what a reader of the result should know.
    """

    def __init__(
        self, networks: Sequence[Any], device: torch.device | str, window: int, stage: str, *, stays: bool = False
    ) -> None:
        self.networks, self.stage, self.stays = networks, stage, stays
        self.device, self.window = torch.device(device), window
        self.wanted = window
        self.warnings: list[str] = []

    def run(self, attempt: Callable[[torch.device, int], T]) -> T:
        """Call `attempt(device, window)`, again with less where memory runs out.

        Raises:
            KitsError: the CPU's memory does not suffice either.
        """
        while True:
            try:
                return attempt(self.device, self.window)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = one_line(error)
            # Outside of `except`, where the traceback still holds what filled the memory.
            self._give_way(said)

    def _give_way(self, said: str) -> None:
        if self.device.type != "cpu":
            torch.cuda.empty_cache()  # nothing where there is no GPU
        if self.window > LEAST_WINDOW:
            self.window = max(LEAST_WINDOW, self.window // 2)
            went_on = f"windows of {self.window} slices, not {self.wanted}"
            self.warnings = [f"the {self.stage} stage: {self.device.type} ran out of memory; went on with {went_on}"]
        elif any(words in said for words in UNCLEAR):
            raise KitsError(
                f"the {self.stage} stage: {self.device.type} cannot compute it in small windows either ({said[:200]})"
            )
        elif self.device.type != "cpu" and not self.stays:
            self.warnings = [f"the {self.stage} stage: {self.device.type} ran out of memory; went on with the CPU"]
            self.device, self.window = torch.device("cpu"), self.wanted
            for network in self.networks:
                if isinstance(network, nn.Module):
                    network.to("cpu")
        else:
            where = f"the {self.device.type.upper()}"
            raise KitsError(
                f"the {self.stage} stage: memory ran out, even with windows of {self.window} slices on {where};"
                " close other programs, or take a machine with more"
            )
