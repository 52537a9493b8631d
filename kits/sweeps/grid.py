"""Every combination of the values given; what is done already is left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from kits.sweeps.trial import DONE, Trial, read_record

LONGEST_NAME = 150  # letters; file systems take 255 bytes, and names are put together with others

# Parameters and the name of a trial to the trial.
Maker = Callable[[dict[str, str], str], Trial]


class Grid:
    """The search over a grid, in the order of the command line: the last key changes fastest.

    Args:
        space: by key the values as they would stand on a command line.
        make: see `Maker`.
    """

    def __init__(self, space: dict[str, list[str]], make: Maker) -> None:
        combinations = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
        self.trials = [make(each, name) for each, name in zip(combinations, names_of(combinations), strict=True)]
        self.total = len(self.trials)
        self.waiting = iter(self.unfinished())

    def unfinished(self) -> Iterator[Trial]:
        """The trials that are not done."""
        for trial in self.trials:
            if (read_record(trial.run_dir) or {}).get("status") != DONE:
                yield trial

    def next(self) -> Trial | None:
        """The next trial to run; None where none is left."""
        return next(self.waiting, None)

    def is_hopeless(self, trial: Trial) -> bool:
        """Whether a running trial is to be stopped: never."""
        return False

    def tell(self, trial: Trial, record: dict[str, Any]) -> None:
        """How a trial ended: a grid learns nothing from it."""


def names_of(combinations: list[dict[str, str]]) -> list[str]:
    """A folder's name for each trial: `loss.bias-1_seed-0`.

    Hydra's grammar takes neither `=` nor a comma unquoted, so neither is in a name that will stand in `coarse=DIR/best.ckpt`.
    """
    names = [name_of(parameters) for parameters in combinations]
    often = Counter(names)
    return [
        name if often[name] == 1 and len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}_{digest(parameters)}"
        for name, parameters in zip(names, combinations, strict=True)
    ]


def name_of(parameters: dict[str, str]) -> str:
    """Key and value of each parameter, in letters that no shell, file system or override grammar minds."""
    return "_".join(re.sub(r"[^\w.+-]+", "-", f"{key}-{value}").rstrip("-") for key, value in parameters.items())


def digest(parameters: dict[str, str]) -> str:
    """Eight letters that tell trials apart whose names are the same."""
    return hashlib.sha256(repr(sorted(parameters.items())).encode()).hexdigest()[:8]
