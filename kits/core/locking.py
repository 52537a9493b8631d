"""Hold a folder for one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kits.core.errors import KitsError


def open_own(path: str | Path, flags: int) -> int:
    """Open an ordinary file as Python's `opener` does, and refuse a link, which may point anywhere.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe or a folder.
    """
    # Without O_NONBLOCK a pipe would wait for its other end.
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no ordinary file", str(path))
    return descriptor


@contextmanager
def sole_user(folder: Path, *, lock: Path, key: str, work: str) -> Iterator[int]:
    """Hold a folder, which is made where it is missing, for this process alone.

    Yields the descriptor of the lock, which processes that inherit it hold too.

    Args:
        lock: the file in it that is locked; the system lets go of it however the process ends.
        key: the configuration's name of the folder, for messages.
        work: the command that works in it.

    Raises:
        KitsError: it cannot be made, its lock is no file of its own, or another process holds it.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_own(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if lock.is_symlink() or (lock.exists() and not lock.is_file()):
            raise KitsError(f"{lock}: is no file that {work} made, but a link, a folder or a pipe; remove it") from error
        raise KitsError(f"{key}={folder}: cannot be made ({error.strerror}); give a folder that you may write") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KitsError(f"{key}={folder}: another {work} is at work there; wait for it, or give another folder") from None
        except OSError:  # some network file systems have no locks
            pass
        yield descriptor
    finally:
        os.close(descriptor)
