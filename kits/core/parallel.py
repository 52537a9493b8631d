"""The same work on many cases, in processes, under a progress bar."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.util import get_temp_dir
from threading import Event, Thread
from typing import Any, TypeVar

from tqdm import tqdm

from kits.core.errors import KitsError

T = TypeVar("T")
LONGEST_FOLDER = 68
# Between two drawings of a progress bar while nothing happens that would move it.
REDRAW_SECONDS = 2.0
GUARD = 'needs its calls below if __name__ == "__main__":, as all scripts that start processes'


def map_cases(
    work: Callable[..., T],
    calls: Sequence[tuple[Any, ...]],
    *,
    workers: int,
    desc: str,
    catch: tuple[type[Exception], ...] = (),
) -> list[T | Exception]:
    """Compute `work(*call)` for every call, in the order of the calls, whichever is done first.

    Args:
        workers: processes; 1 stays in this one.
        desc: the name of the progress bar, which shows a rate and the time left.
        catch: exceptions that become a call's result; any other ends the whole.

    Raises:
        KitsError: a process was killed, by the system for want of memory as a rule.
    """
    results: list[Any] = [None] * len(calls)
    with tqdm(total=len(calls), desc=desc, unit="case") as bar, ticking(bar):
        for position, job in finished(work, calls, workers):
            try:
                results[position] = job.result()
            except catch as error:
                results[position] = error
            except BrokenProcessPool as error:
                main = sys.modules["__main__"]
                if main.__spec__ is None and hasattr(main, "__file__"):  # a script, which each worker imports when it starts
                    what = f"a worker process did not start or was killed; if memory is not the cause, {main.__file__} {GUARD}"
                else:
                    what = "a worker process was killed, most likely for want of memory; use fewer workers"
                raise KitsError(f"{desc}: {what}") from error
            bar.update()
    return results


@contextmanager
def ticking(bar: tqdm) -> Iterator[None]:
    """Redraw a progress bar by time, so that its clock goes on through work that takes minutes."""
    over = Event()

    def redraw() -> None:
        while not over.wait(REDRAW_SECONDS):
            bar.refresh()

    if bar.disable or not bar.fp.isatty():
        yield
        return
    thread = Thread(target=redraw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def finished(work: Callable[..., T], calls: Sequence[tuple[Any, ...]], workers: int) -> Iterator[tuple[int, Future[T]]]:
    """Yield each call's position and its finished future, as they finish."""
    if workers <= 1 or len(calls) <= 1:
        for position, call in enumerate(calls):
            here: Future[T] = Future()
            try:
                here.set_result(work(*call))
            except Exception as error:
                here.set_exception(error)
            yield position, here
        return
    if getattr(current_process(), "_inheriting", False):  # this is a worker, still importing the script that has started it
        raise SystemExit(f"{sys.modules['__mp_main__'].__file__} {GUARD}")
    # Spawned, not forked: a fork of a process whose libraries have started threads can hang.
    with ProcessPoolExecutor(min(workers, len(calls)), mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        with safely_started():
            positions = {pool.submit(work, *call): position for position, call in enumerate(calls)}
        try:
            for job in as_completed(positions):
                yield positions[job], job
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def safely_started() -> Iterator[None]:
    """Let a process that `multiprocessing` starts import nothing from the working folder first.

    It begins as `python -c`, whose path begins with that folder, and is given this process's path only then, see `kits`.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def end_with_parent() -> None:
    """End this worker as soon as its parent is gone; a pool's workers would wait for it for ever."""
    if (parent := parent_process()) is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        Thread(target=wait, daemon=True).start()


def allow_long_folder() -> None:
    """Let processes talk to one another although the folder for temporary files has a long name.

    A socket's name has at most 107 bytes (104 on macOS), of which `multiprocessing` takes about 35 for its own folder and file in
    that folder. It keeps the one that it has made first.

    Raises:
        KitsError: no other folder can be written either.
    """
    wanted = tempfile.gettempdir()
    if len(os.fsencode(wanted)) <= LONGEST_FOLDER:
        return
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            try:
                tempfile.tempdir = folder
                get_temp_dir()
            finally:
                tempfile.tempdir = wanted
            return
    raise KitsError(f"TMPDIR={wanted}: too long for the sockets of several processes; set a shorter one, or workers to 0")
