"""The state of every random generator that a training may draw from, as plain containers and tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kits.config import one_line
from kits.core.plain_files import misfit

FORM = {"python": (int, [int], float | None), "numpy": (Tensor, int, int, float), "torch": Tensor, "cuda": [Tensor]}
# Words of the Mersenne twister, which numpy reads at a position without a look at it.
WORDS = 624


def random_state() -> dict[str, Any]:
    """Collect the states of Python, numpy, torch and every GPU."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go on with the random numbers of `random_state`; those of GPUs only where there are as many."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def unusable(state: Any) -> str | None:
    """Tell why this is no `random_state`, tried on generators that nothing draws from; else None."""
    if wrong := misfit(state, FORM, "the random state"):
        return wrong
    version, keys, gauss = state["python"]
    words, position, *rest = state["numpy"]
    try:
        random.Random().setstate((version, tuple(keys), gauss))
        np.random.RandomState().set_state(("MT19937", words.numpy().astype(np.uint32), position, *rest))
        torch.Generator().set_state(state["torch"])
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        return f"the random state: {one_line(error)}"
    sound = 0 <= position <= WORDS and all(one.dtype == torch.uint8 for one in state["cuda"])
    return None if sound else "the random state is of no generator"
