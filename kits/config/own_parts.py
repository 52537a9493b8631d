"""Parts of a user's own, built from their `_target_` as Hydra does; a mistake is one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kits.config.conf_files import one_line
from kits.config.schema.own import TARGET
from kits.core.errors import KitsError


def build(own: Mapping[str, Any], key: str, kind: type, *first: Any, **more: Any) -> Any:
    """Build a part.

    Args:
        own: `_target_` and arguments; parts nested in them are built too.
        key: where it stands, for the message.
        kind: what it must be.
        first, more: arguments of ours.

    Raises:
        KitsError: there is no such part, it refuses its arguments, or it is of another kind.
    """
    from hydra.utils import instantiate

    # Partial: what is ours does not go through OmegaConf, which would copy parameters.
    with blame(own, key):
        part = instantiate({**own, "_partial_": True}, _convert_="all")(*first, **more)
    if not isinstance(part, kind):
        wanted = f"{kind.__module__}.{kind.__qualname__}"
        raise KitsError(f"{key}.{TARGET}={own[TARGET]}: gives {type(part).__qualname__}; name what gives a {wanted}")
    return part


def find(config: Any, key: str = "") -> None:
    """Look for every part that a configuration names, and build none.

    Raises:
        KitsError: there is no such part.
    """
    if isinstance(config, Mapping) and TARGET in config:
        from hydra.utils import get_object

        with blame(config, key):
            get_object(str(config[TARGET]))
    within = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    for name, value in within:
        find(value, f"{key}.{name}" if key else str(name))


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
        raise KitsError(f"{key}.{TARGET}={own[TARGET]}: {type(cause).__name__}: {what}; mend it or its arguments") from error
