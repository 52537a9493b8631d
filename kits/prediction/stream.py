"""A stream of cases: reading the next, working on this one and writing the last go on at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")


def stream(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Item, Read], Done],
    write: Callable[[Item, Done], None],
) -> Generator[tuple[Item, Exception | None], None, None]:
    """Read, work on and write every item in order; yield each with the error that ended it.

    Reading and writing have a thread each. At most one item is read ahead, and at most one waits to be written; nothing keeps
    what was read once the work on it is done. Whatever ends the caller (Ctrl-C) lets what is being written be finished.
    """
    todo = iter(items)
    with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(1, "write") as writing:

        def read_next() -> tuple[Item, Future[Read]] | None:
            for item in todo:
                return item, reading.submit(read, item)
            return None

        written: tuple[Item, Future[None]] | None = None
        try:
            ahead = read_next()
            while ahead is not None:
                item, source = ahead
                error, done = source.exception(), None
                ahead = read_next()
                if error is None:
                    try:
                        done = work(item, source.result())
                    except Exception as failure:
                        error = failure
                del source
                if written is not None:
                    yield written[0], _as_exception(written[1].exception())
                    written = None
                if error is not None:
                    yield item, _as_exception(error)
                elif done is None:
                    raise RuntimeError("work must return something")
                else:
                    written = item, writing.submit(write, item, done)
                del done
            if written is not None:
                yield written[0], _as_exception(written[1].exception())
        finally:
            reading.shutdown(cancel_futures=True)


def _as_exception(error: BaseException | None) -> Exception | None:
    """Return the error as one that a case may have; raise any other (a thread's own exit)."""
    if error is None or isinstance(error, Exception):
        return error
    raise error
