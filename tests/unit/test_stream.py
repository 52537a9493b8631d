"""Reading ahead, working and writing overlap, in order, with little kept; an error belongs to its item."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from kits.prediction.stream import stream


class Volume:
    """Something that is heavy to keep."""


def test_items_come_in_order_and_errors_belong_to_them() -> None:
    written = []

    def fail_on(value: int, bad: int) -> int:
        if value == bad:
            raise ValueError(f"item {bad}")
        return value

    outcomes = list(
        stream(
            range(6),
            lambda item: fail_on(item, 1),
            lambda item, read: fail_on(read, 3) * 10,
            lambda item, done: written.append(fail_on(done, 40)),
        )
    )
    assert [item for item, _ in outcomes] == [0, 1, 2, 3, 4, 5]
    assert [str(error) if error else None for _, error in outcomes] == [None, "item 1", None, "item 3", "item 40", None]
    assert written == [0, 20, 50]


def test_the_three_overlap() -> None:
    together = threading.Barrier(3, timeout=10)  # breaks unless item 2 is read, 1 worked on and 0 written at one time

    def meet(item: int, turn: int) -> int:
        if item == turn:
            together.wait()
        return item

    outcomes = list(
        stream(range(3), lambda item: meet(item, 2), lambda item, _: meet(item, 1), lambda item, _: meet(item, 0) and None)
    )
    assert all(error is None for _, error in outcomes)


def test_at_most_one_volume_is_read_ahead_and_none_is_kept() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def read(item: int) -> Volume:
        nonlocal most
        volume = Volume()
        alive.append(weakref.ref(volume))
        most = max(most, sum(ref() is not None for ref in alive))
        return volume

    def work(item: int, volume: Volume) -> int:
        time.sleep(0.002)
        return item

    for _ in stream(range(30), read, work, lambda item, done: time.sleep(0.001)):
        pass
    gc.collect()
    assert len(alive) == 30
    assert most == 2
    assert not any(ref() for ref in alive)


def test_an_interrupt_lets_the_write_finish_and_reads_no_more() -> None:
    began, reads, written = threading.Event(), [], []

    def read(item: int) -> int:
        reads.append(item)
        return item

    def work(item: int, _: int) -> int:
        if item == 1:
            assert began.wait(10)
            raise KeyboardInterrupt
        return item

    def write(item: int, _: int) -> None:
        began.set()
        time.sleep(0.05)
        written.append(item)

    def consume() -> Iterator[int]:
        for item, _ in stream(range(100), read, work, write):
            yield item

    with pytest.raises(KeyboardInterrupt):
        list(consume())
    assert written == [0]
    assert len(reads) <= 3
