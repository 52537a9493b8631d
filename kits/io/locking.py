"""A folder for one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kits.errors import KitsError


@contextmanager
def sole_user(folder: Path, *, lock: Path, key: str, work: str) -> Iterator[int]:
    """Hold a folder, made where it is missing; the descriptor of the lock, which processes that inherit it hold too.

    Args:
        lock: the file in it that is locked; the system lets go of it however the process ends.
        key: the configuration's name of the folder, for messages.
        work: the command that works in it.

    Raises:
        KitsError: it cannot be made, or another process holds it.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w", encoding="utf-8")
    except OSError as error:
        raise KitsError(f"{key}={folder}: cannot be made ({error.strerror}); give a folder that you may write") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KitsError(f"{key}={folder}: another {work} is at work there; wait for it, or give another folder") from None
        except OSError:  # some network file systems have no locks
            pass
        yield stream.fileno()
