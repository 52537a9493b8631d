"""KiTS19 onto this disk: what is missing, how much that is, and each sound file put in place."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from kits.config.schema.commands import Download
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.data.remote import Client
from kits.data.sources import RemoteFile, list_files
from kits.data.store import HIDDEN, DamagedError, Folder, Promise, check_arrived, size_of


def download(options: Download) -> str:
    """Fetch what conf/download.yaml asks for and is not in `output` yet.

    Returns:
        What was done, in one line.

    Raises:
        KitsError: a key cannot be understood, the disk is too small, or files could not be fetched (the others are in place).
    """
    sources, path = list_files(options), Path(options.output)
    client = Client(options.hub_endpoint, options.retries)
    # The pool's threads are daemons: one that waits for a silent server does not hold up an interrupted program.
    lock = sole_user(path, lock=path / HIDDEN / "lock", key="output", work="kits.download")
    try:
        with lock, ThreadPool(options.workers) as pool:
            folder = Folder(path)
            sound = pool.imap(folder.sound, [source.name for source in sources])
            there = list(tqdm(sound, total=len(sources), desc="look", unit="file"))
            missing = [source for source, kept in zip(sources, there, strict=True) if not kept]
            answers = client.promises(options.hub_repo, options.hub_revision, missing)
            promises = {source: promise for source, promise in answers.items() if isinstance(promise, Promise)}
            total = announce(promises, folder, sum(there))
            with tqdm(total=total, desc="download", unit="B", unit_scale=True, disable=not promises) as client.bar:
                fetched = dict(pool.imap_unordered(partial(fetch, client=client, folder=folder), promises.items()))
    except KeyboardInterrupt:
        tqdm.write("what has arrived is kept: the same command goes on from there", file=sys.stderr)
        raise
    failures = {source: why for source, why in [*answers.items(), *fetched.items()] if isinstance(why, KitsError)}
    sizes = [size for size in fetched.values() if isinstance(size, int)]
    summary = (
        f"{len(sizes)} files downloaded ({readable_size(sum(sizes))}), {sum(there)} were there and sound, {len(failures)} failed"
    )
    if failures:
        for line in group_failures(failures):
            tqdm.write(f"failed: {line}", file=sys.stderr)
        raise KitsError(f"{summary}; mend what is named above and run the same command again: what is here is kept")
    return f"{summary}; in {path}"


def announce(promises: Mapping[RemoteFile, Promise], folder: Folder, sound: int) -> int:
    """Say how much will be fetched, and return it in bytes; label maps of unknown size are small.

    Raises:
        KitsError: more than the disk has room for.
    """
    arrived = sum(size_of(folder.part(source, promise)) for source, promise in promises.items())
    missing = sum(promise.size or 0 for promise in promises.values()) - arrived
    free = shutil.disk_usage(folder.path).free
    if promises:
        resumed = f" ({readable_size(arrived)} of them arrived earlier)" if arrived else ""
        room = f"{sound} are there and sound; {readable_size(free)} of disk free"
        print(f"{len(promises)} files to fetch, {readable_size(missing)} of imaging{resumed}; {room}")
    if missing > free:
        raise KitsError(
            f"output={folder.path}: {readable_size(missing)} to fetch, but the disk has {readable_size(free)} free;"
            " give a folder on a larger one, name fewer cases, or leave the imaging out (imaging=false)"
        )
    return missing


def fetch(item: tuple[RemoteFile, Promise], client: Client, folder: Folder) -> tuple[RemoteFile, int | KitsError]:
    """Fetch one file, once more if it arrives damaged, into its place; its size, or why it cannot be had."""
    source, promise = item
    part = folder.part(source, promise)
    for _ in range(2):
        try:
            client.fetch(source, promise, part)
            check_arrived(source, promise, part)
            folder.place(part, source.name)
            return source, size_of(folder.path / source.name)
        except DamagedError as error:
            part.unlink(missing_ok=True)
            failure: KitsError = error
        except KitsError as error:
            return source, error
    return source, failure


def group_failures(failures: Mapping[RemoteFile, KitsError]) -> list[str]:
    """Group the failures by reason, a line each: many cases commonly fail for the same one."""
    names: dict[str, list[str]] = {}
    for source in sorted(failures, key=lambda source: source.name):
        names.setdefault(str(failures[source]), []).append(source.name)
    shown = 5
    return [
        f"{', '.join(group[:shown])}{f' and {len(group) - shown} more' if len(group) > shown else ''}: {reason}"
        for reason, group in names.items()
    ]


def readable_size(count: int) -> str:
    """Return bytes for the eye: 28.4 GB."""
    return re.sub(r"([\d.]+)(\D*)", r"\1 \2", tqdm.format_sizeof(count, "B"))
