"""The fall-back when memory runs out: smaller windows, then the CPU, and an error last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from kits.config import one_line
from kits.core.errors import KitsError

T = TypeVar("T")

# Fewer slices hardly see their neighbors.
LEAST_WINDOW = 6
# How torch and its libraries say so where the exception's type does not.
SAID = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
# What cuDNN says without memory for its work, and also on a GPU that it has no kernel for: a smaller window tells which.
UNCLEAR = ("unable to find an engine", "FIND was unable", "Unable to find a valid cuDNN algorithm")


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
