"""Parts of a user's own, built from their `_target_` as Hydra does; a mistake is one line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kits.config.conf_files import flat, one_line
from kits.config.schema.own import TARGET
from kits.core.errors import KitsError

# What the part in each group must be; callbacks, loggers and augmentation have names below theirs.
KINDS = {
    "loss": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "scheduler": "torch.optim.lr_scheduler.LRScheduler",
    "callbacks": "pytorch_lightning.Callback",
    "logger": "pytorch_lightning.loggers.Logger",
    "augmentation": "monai.transforms.Transform",
}


def build(own: Mapping[str, Any], key: str, *first: Any, **more: Any) -> Any:
    """Build a part.

    Args:
        own: `_target_` and arguments; parts nested in them are built too.
        key: where it stands, which decides what it must be.
        first, more: arguments of ours.

    Raises:
        KitsError: there is no such part, it refuses its arguments, or it is of another kind.
    """
    from hydra.utils import instantiate

    find(own, key)
    # Partial: what is ours does not go through OmegaConf, which would copy parameters.
    with blame(own, key):
        part = instantiate({**own, "_partial_": True}, _convert_="all")(*first, **more)
    check_kind(own, key, type(part))
    return part


def find(config: Any, key: str) -> None:
    """Look for every part that a group names, and build none; without one nothing slow is imported.

    Raises:
        KitsError: there is no such part, or it is a class of another kind.
    """
    if isinstance(config, Mapping) and TARGET in config:
        from hydra.utils import get_object

        with blame(config, key):
            found = get_object(str(config[TARGET]))
        if isinstance(found, type):  # what a function gives is seen when it is called
            check_kind(config, key, found)
    within = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    for name, value in within:
        find(value, f"{key}.{name}")


def check_kind(own: Mapping[str, Any], key: str, given: type) -> None:
    """Refuse a part of another kind than its group's; one nested in another may be anything."""
    from hydra.utils import get_class

    wanted = KINDS.get(re.sub(r"^(callbacks|logger|augmentation)\.[^.]+$", r"\1", key))
    if wanted and not issubclass(given, get_class(wanted)):
        raise KitsError(f"{key}.{TARGET}={own[TARGET]}: gives {given.__qualname__}; name what gives a {wanted}")


def blamed(error: BaseException, config: Mapping[str, Any]) -> KitsError | None:
    """Blame the part of a user's own that an error came out of while it was at work; None where none was."""
    from hydra.utils import get_object

    parts = {key: get_object(str(name)) for key, name in flat(config).items() if key.endswith(f".{TARGET}")}
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        owner = frame.f_locals.get("self")
        for key, part in parts.items():
            if isinstance(part, type) and isinstance(owner, part):
                place = f"{Path(frame.f_code.co_filename).name}, line {line}"
                return KitsError(f"{key}: {type(error).__name__} in {place}: {one_line(error)}; mend it")
    return None


@contextmanager
def blame(own: Mapping[str, Any], key: str) -> Iterator[None]:
    """Blame a user's own code for whatever it raises, in one line."""
    try:
        yield
    except Exception as error:  # it may raise anything
        cause: BaseException = error
        while type(cause).__module__.startswith("hydra.") and cause.__cause__ is not None:
            cause = cause.__cause__
        what = one_line(cause).partition(", set env var")[0]
        given = ", ".join(name for name in own if not name.startswith("_"))
        # A recipe may have given some to the part that was there before.
        here = f", here {given}; ~{key}.NAME leaves one out" if given and isinstance(cause, TypeError) else ""
        what = f"{type(cause).__name__}: {what}; mend it or its arguments{here}"
        raise KitsError(f"{key}.{TARGET}={own[TARGET]}: {what}") from error
