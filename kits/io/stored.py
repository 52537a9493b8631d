"""Voxels as a file holds them, unpacked once, checked to the last byte, into their final memory."""

from __future__ import annotations

import bz2
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, igzip_lib

from kits.core.errors import KitsError, last_line
from kits.io.limits import refuse_memory
from kits.io.voxels import Convert

RAW, GZIP, ZLIB, BZIP2 = "raw", "gzip", "zlib", "bzip2"
GZIP_MAGIC = b"\x1f\x8b"
# Deflate codes at most 258 bytes in 2 bits, bzip2 a block of 900 kB in some 40 bytes: a header that promises more than the file
# can hold is refused before memory is taken.
MOST_COMPRESSION = {RAW: 1, GZIP: 1032, ZLIB: 1032, BZIP2: 1 << 15}
# What is unpacked at a time: it stays in a core's cache while it is swapped, checked and converted.
_CHUNK_BYTES = 1 << 18
# What may follow the voxels: padding to a block. More is another image than the header's, or a bomb.
_MOST_BEHIND = 4096


@dataclass(frozen=True)
class Stored:
    """Voxels in a file: where they are and how they are stored (value = stored * slope + inter).

    Attributes:
        file: that holds them; a header may be a file of its own.
        dtype: theirs, in this machine's byte order.
        swapped: whether they are in the other one.
        encoding: RAW, GZIP, ZLIB or BZIP2. All but RAW carry a checksum.
        start: bytes of the file before the packed stream.
        skip: unpacked bytes before the first voxel.
    """

    file: Path
    dtype: np.dtype
    swapped: bool = False
    encoding: str = RAW
    start: int = 0
    skip: int = 0
    slope: float = 1.0
    inter: float = 0.0

    @property
    def scaled(self) -> bool:
        """As ITK decides it."""
        epsilon = sys.float_info.epsilon
        return abs(self.slope - 1) > epsilon or abs(self.inter) > epsilon

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Return the values that stored numbers stand for, in native order, float32 of integers as in ITK."""
        if not self.scaled:
            return stored
        kept = np.float32 if stored.dtype.kind in "iu" else stored.dtype
        with np.errstate(over="ignore"):  # becomes infinite and is refused as such
            return (stored.astype(kept).astype(np.float64) * self.slope + self.inter).astype(kept)

    def read(self, shape: tuple[int, ...], dtype: np.dtype, convert: Convert) -> np.ndarray:
        """Read the voxels (k, j, i) into one buffer of the wanted type, each chunk passed through `convert`.

        Args:
            dtype: what `convert` makes of the values.

        Raises:
            KitsError: damaged, or shorter than the header promises, or more than fits the memory; or what `convert` raises.
        """
        count = math.prod(shape)
        expected = self.refuse_short(shape)
        refuse_memory(self.file, count * dtype.itemsize)
        with open_unpacked(self.file, self.encoding, self.start) as stream:
            skip(stream, self.skip)
            result = np.empty(count, dtype)
            direct = self.dtype == dtype and not self.scaled
            step = _CHUNK_BYTES // self.dtype.itemsize
            scratch = np.empty(step, self.dtype)
            for start in range(0, count, step):
                target = result[start : start + step]
                stored = target if direct else scratch[: len(target)]
                if (missing := _fill(stream, stored)) > 0:
                    size = self.skip + start * self.dtype.itemsize + stored.nbytes - missing
                    raise KitsError(f"{self.file}: incomplete, {size} of {expected} bytes; copy it again")
                if self.swapped:
                    stored.byteswap(inplace=True)
                values = convert(self.values(stored))
                if values is not target:
                    target[...] = values
            self._finish(stream)
        return result.reshape(shape)

    def check(self, shape: tuple[int, ...]) -> None:
        """Read to the end, keeping no voxel, to see whether the file is whole.

        Raises:
            KitsError: damaged, or shorter than the header promises.
        """
        expected = self.refuse_short(shape)
        with open_unpacked(self.file, self.encoding, self.start) as stream:
            if (size := skip(stream, expected)) < expected:
                raise KitsError(f"{self.file}: incomplete, {size} of {expected} bytes; copy it again")
            self._finish(stream)

    def refuse_short(self, shape: tuple[int, ...]) -> int:
        """Return the unpacked bytes up to the last voxel's end; KitsError where the file cannot hold them."""
        expected = self.skip + math.prod(shape) * self.dtype.itemsize
        held = max(0, self.file.stat().st_size - self.start)
        if self.encoding == RAW and expected > held:
            raise KitsError(f"{self.file}: incomplete, {held} of {expected} bytes; copy it again")
        if expected > held * MOST_COMPRESSION[self.encoding]:
            raise KitsError(f"{self.file}: incomplete, {held} compressed bytes cannot hold {expected}; copy it again")
        return expected

    def _finish(self, stream: BufferedIOBase) -> None:
        if skip(stream, _MOST_BEHIND + 1) > _MOST_BEHIND:  # to the end, where the checksum is
            raise KitsError(f"{self.file}: holds more voxels than its header says; is that of another image? Convert it again")


class _Unpacked(RawIOBase):
    """The bytes of a file's rest, which is one zlib stream, or bzip2 streams, and nothing else."""

    def __init__(self, file: BufferedReader, make: Callable[[], Any], several: bytes | None) -> None:
        self.file, self.make, self.several = file, make, several
        self.unpacker = make()

    def readable(self) -> bool:
        """Tell that this stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Unpack at least one byte, or find the end.

        Raises:
            EOFError: the file ends first.
            OSError: damaged, or something follows.
        """
        while True:
            packed = b"" if self.unpacker.eof or not self.unpacker.needs_input else self.file.read(_CHUNK_BYTES)
            if self.unpacker.eof:
                behind = self.unpacker.unused_data or self.file.read(_CHUNK_BYTES)
                if not behind:
                    return 0
                if self.several is None or not behind.startswith(self.several):
                    raise OSError("something follows the compressed data")
                self.unpacker, packed = self.make(), behind
            elif not packed and self.unpacker.needs_input:
                raise EOFError("the compressed data end too early")
            if part := self.unpacker.decompress(packed, len(buffer)):
                buffer[: len(part)] = part
                return len(part)


@contextmanager
def open_unpacked(file: Path, encoding: str, start: int = 0) -> Iterator[BufferedIOBase]:
    """Open a file at byte `start` as a stream of unpacked bytes.

    Raises:
        KitsError: damaged, by whatever of its checksums; it may be raised as late as at the end of the stream.
    """
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            if encoding == RAW:
                yield stream
            elif encoding == GZIP:
                with igzip.IGzipFile(filename="", mode="rb", fileobj=stream) as unpacked:
                    yield unpacked
            elif encoding == ZLIB:
                make = lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)  # noqa: E731
                yield BufferedReader(_Unpacked(stream, make, None), _CHUNK_BYTES)
            else:
                yield BufferedReader(_Unpacked(stream, bz2.BZ2Decompressor, b"BZh"), _CHUNK_BYTES)
    except (EOFError, OSError, zlib.error, igzip_lib.error) as error:  # type: ignore[misc]
        # It began as a gzip file, so what is none stands behind the first stream.
        what = "something follows the compressed data" if isinstance(error, BadGzipFile) else last_line(error)
        raise KitsError(f"{file}: damaged or incomplete ({what}); copy it again") from error


def is_gzip(file: Path) -> bool:
    """Tell whether a file begins as gzip does, whatever its name says.

    Raises:
        KitsError: it cannot be opened.
    """
    with open_unpacked(file, RAW) as stream:
        return stream.read(2) == GZIP_MAGIC


def skip(stream: BufferedIOBase, count: int) -> int:
    """Read `count` bytes, or all that are left, for nothing; returns how many there were."""
    skipped = 0
    while skipped < count and (part := stream.read(min(count - skipped, _CHUNK_BYTES))):
        skipped += len(part)
    return skipped


def _fill(stream: BufferedIOBase, array: np.ndarray) -> int:
    """Read an array's bytes; returns how many are missing."""
    rest = array.view(np.uint8).data
    while len(rest) and (count := stream.readinto(rest)):
        rest = rest[count:]
    return len(rest)
