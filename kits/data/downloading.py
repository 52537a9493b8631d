"""KiTS19 onto this disk: look what is missing, say how much that is, fetch it in threads, put each sound file in place."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from tqdm import tqdm

from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.data.remote import Client, DamagedError, Promise, size_of, token_for
from kits.data.sources import Source, wanted
from kits.data.store import HIDDEN, Folder, check_arrived

T = TypeVar("T")


def download(config: dict[str, Any]) -> str:
    """Fetch what the configuration (conf/download.yaml) asks for and is not in `output` yet.

    Returns:
        What was done, in one line.

    Raises:
        KitsError: a key cannot be understood, the disk is too small, or files could not be fetched (the others are in place).
    """
    sources = wanted(config)
    stop = Event()
    client = Client(config["network"], token=token_for(config["hub_endpoint"]), stop=stop)
    try:
        path = Path(config["output"])
        with sole_user(path, lock=path / HIDDEN / "lock", key="output", work="kits.download"):
            folder = Folder(path)
            promises, failures = look(sources, folder, client, config["workers"])
            announce(promises, folder, len(sources) - len(promises) - len(failures))
            fetched = fetch(promises, folder, client, config["workers"])
    except KeyboardInterrupt:
        tqdm.write("what has arrived is kept: the same command goes on from there", file=sys.stderr)
        raise
    finally:
        stop.set()
    failures |= {source: result for source, result in fetched.items() if isinstance(result, KitsError)}
    sizes = [result for result in fetched.values() if isinstance(result, int)]
    skipped = len(sources) - len(sizes) - len(failures)
    summary = f"{len(sizes)} files downloaded ({amount(sum(sizes))}), {skipped} were there and sound, {len(failures)} failed"
    if failures:
        for line in grouped(failures):
            tqdm.write(f"failed: {line}", file=sys.stderr)
        raise KitsError(f"{summary}; mend what is named above and run the same command again: what is here is kept")
    return f"{summary}; in {path}"


def look(
    sources: Sequence[Source], folder: Folder, client: Client, workers: int
) -> tuple[dict[Source, Promise], dict[Source, KitsError]]:
    """What the server promises of each file that is missing or damaged here, and of which it promises nothing."""

    def missing(source: Source) -> Promise | None:
        return None if folder.sound(source.name) else client.promise(source)

    results = dict(tqdm(in_threads(missing, sources, workers), total=len(sources), desc="look", unit="file"))
    promises = {source: results[source] for source in sources if isinstance(results[source], Promise)}
    return promises, {source: result for source, result in results.items() if isinstance(result, KitsError)}


def announce(promises: dict[Source, Promise], folder: Folder, sound: int) -> None:
    """Say how much will be fetched.

    Raises:
        KitsError: more than the disk has room for.
    """
    if not promises:
        return
    arrived = sum(size_of(folder.part(source, promise)) for source, promise in promises.items())
    missing = sum(promise.size or 0 for promise in promises.values()) - arrived
    free = shutil.disk_usage(folder.path).free
    resumed = f" ({amount(arrived)} of them arrived earlier)" if arrived else ""
    print(f"{len(promises)} files to fetch, {amount(missing)}{resumed}; {sound} are there and sound; {amount(free)} of disk free")
    if missing > free:
        raise KitsError(
            f"output={folder.path}: {amount(missing)} to fetch, but the disk has {amount(free)} free;"
            " give a folder on a larger one, name fewer cases, or leave the imaging out (imaging=false)"
        )


def fetch(promises: dict[Source, Promise], folder: Folder, client: Client, workers: int) -> dict[Source, int | KitsError]:
    """The size of each file that is now in place, or why it is not."""
    total = sum(promise.size or 0 for promise in promises.values())
    arrived = sum(size_of(folder.part(source, promise)) for source, promise in promises.items())
    lock = Lock()
    with tqdm(total=total, initial=arrived, desc="download", unit="B", unit_scale=True, disable=not promises) as bar:

        def gained(count: int) -> None:
            with lock:
                bar.update(count)

        def work(source: Source) -> int:
            return fetch_one(source, promises[source], folder, client, gained)

        return dict(in_threads(work, list(promises), workers))


def fetch_one(source: Source, promise: Promise, folder: Folder, client: Client, gained: Callable[[int], None]) -> int:
    """Fetch one file, once more where it arrives damaged, and put it in place; returns its size.

    Raises:
        KitsError: it cannot be had, or is damaged a second time.
    """
    for last in (False, True):
        part = folder.part(source, promise)
        try:
            client.fetch(source, promise, part, gained)
            check_arrived(source, promise, part)
            break
        except DamagedError:
            gained(-size_of(part))
            part.unlink(missing_ok=True)
            if last:
                raise
            promise = client.promise(source)  # the server may have replaced the file meanwhile
    try:
        folder.place(part, source.name)
    except OSError as error:
        raise KitsError(f"{source.name}: cannot be put in place ({error.strerror}); check the folder {folder.path}") from error
    return size_of(folder.path / source.name)


def in_threads(work: Callable[[Source], T], items: Sequence[Source], workers: int) -> Iterator[tuple[Source, T | KitsError]]:
    """Each item with `work(item)` or the KitsError that it raised, as they finish.

    The threads are daemons: one that waits for a silent server must not hold up the end of an interrupted program.
    """
    waiting: SimpleQueue[Source] = SimpleQueue()
    finished: SimpleQueue[tuple[Source, T | BaseException]] = SimpleQueue()

    def run() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except Empty:
                return
            try:
                finished.put((item, work(item)))
            except BaseException as error:  # handed to the thread that asked
                finished.put((item, error))

    for item in items:
        waiting.put(item)
    for _ in range(min(workers, len(items))):
        Thread(target=run, daemon=True).start()
    for _ in items:
        item, result = finished.get()
        if isinstance(result, BaseException) and not isinstance(result, KitsError):
            raise result
        yield item, result


def grouped(failures: dict[Source, KitsError]) -> list[str]:
    """The failures as lines, one a reason: many cases commonly fail for the same one."""
    names: dict[str, list[str]] = {}
    for source in sorted(failures, key=lambda source: source.name):
        reason = str(failures[source]).removeprefix(f"{source.name}: ")
        names.setdefault(reason, []).append(source.name)
    shown = 5
    return [
        f"{', '.join(group[:shown])}{f' and {len(group) - shown} more' if len(group) > shown else ''}: {reason}"
        for reason, group in names.items()
    ]


def amount(count: int) -> str:
    """Bytes for the eye: 28.4 GB."""
    return re.sub(r"([\d.]+)(\D*)", r"\1 \2", tqdm.format_sizeof(count, "B"))
