"""Voxels of a single-file NIfTI-1 (.nii, .nii.gz): decompressed once, checked to the last byte, straight into their final memory.

Only the voxels: what the header says of geometry is ITK's business. Values are those that ITK would give, scaling included.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from isal import igzip, igzip_lib

from kits.errors import KitsError
from kits.io.reason import last_line
from kits.io.voxels import Convert

# NIfTI-1's scalar data types by their code (nifti1.h). Complex numbers, colors and 128-bit floats are left to ITK.
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_HEADER_BYTES = 348
_HEADER = np.dtype(
    {
        "names": ["dims", "datatype", "spacing", "vox_offset", "scl_slope", "scl_inter", "magic"],
        "formats": ["<i2", "<i2", ("<f4", 3), "<f4", "<f4", "<f4", "S4"],
        "offsets": [40, 70, 80, 108, 112, 116, 344],
        "itemsize": _HEADER_BYTES,
    }
)
# What is decompressed at a time: it stays in a core's cache while it is swapped, checked and converted.
_CHUNK_BYTES = 1 << 18
# Deflate codes at most 258 bytes in 2 bits: a header that promises more than the file can hold is refused before memory is taken.
MOST_COMPRESSION = 1032


@dataclass(frozen=True)
class _Layout:
    """How the voxels are stored: their type, whether in the other byte order, and after how many bytes the first one comes.

    A value is stored * slope + inter. The spacing is the file's own, (i, j, k).
    """

    dtype: np.dtype
    swapped: bool
    offset: int
    slope: float
    inter: float
    spacing: tuple[float, ...]

    @property
    def scaled(self) -> bool:
        """As ITK decides it."""
        epsilon = sys.float_info.epsilon
        return abs(self.slope) > epsilon and (abs(self.slope - 1) > epsilon or abs(self.inter) > epsilon)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers, in this machine's byte order, as the values they stand for: integers become float32 as in ITK."""
        if not self.scaled:
            return stored
        kept = np.float32 if stored.dtype.kind in "iu" else stored.dtype
        with np.errstate(over="ignore"):  # becomes infinite and is refused as such
            return (stored.astype(kept).astype(np.float64) * self.slope + self.inter).astype(kept)


def read_voxels(path: Path, shape: tuple[int, ...], dtype: np.dtype, convert: Convert) -> np.ndarray | None:
    """The voxels (k, j, i) of a NIfTI file, each chunk passed through `convert`; None for any other format.

    There is one buffer, of the wanted type; a file of that type is decompressed into it directly.

    Args:
        shape: of the image, as ITK read it from the header.
        dtype: what `convert` makes of the values.

    Raises:
        KitsError: damaged, or shorter than the header promises; or what `convert` raises.
    """
    with _open(path) as stream:
        layout = _layout(stream.read(_HEADER_BYTES))
        if layout is None:
            return None
        count = math.prod(shape)
        expected = layout.offset + count * layout.dtype.itemsize
        _refuse_what_cannot_fit(path, expected)
        _skip(stream, layout.offset - _HEADER_BYTES)
        result = np.empty(count, dtype)
        direct = layout.dtype == dtype and not layout.scaled
        step = _CHUNK_BYTES // layout.dtype.itemsize
        scratch = np.empty(step, layout.dtype)
        for start in range(0, count, step):
            target = result[start : start + step]
            stored = target if direct else scratch[: len(target)]
            if (missing := _fill(stream, stored)) > 0:
                size = layout.offset + start * layout.dtype.itemsize + stored.nbytes - missing
                raise KitsError(f"{path}: incomplete, {size} of {expected} bytes; copy it again")
            if layout.swapped:
                stored.byteswap(inplace=True)
            values = convert(layout.values(stored))
            if values is not target:
                target[...] = values
        _skip(stream)  # the checksum comes last
    return result.reshape(shape)


def check_length(path: Path, shape: tuple[int, ...]) -> None:
    """Read a NIfTI file to its end, keeping no voxel, to see whether it is whole; any other format only where it is compressed.

    Args:
        shape: of the image, as ITK read it from the header.

    Raises:
        KitsError: damaged, or shorter than the header promises.
    """
    with _open(path) as stream:
        layout = _layout(stream.read(_HEADER_BYTES))
        if layout is None and not _compressed(path):
            return
        size = _HEADER_BYTES + _skip(stream)
    expected = layout.offset + math.prod(shape) * layout.dtype.itemsize if layout else 0
    if size < expected:
        raise KitsError(f"{path}: incomplete, {size} of {expected} bytes; copy it again")


def refuse_spacing(path: Path) -> None:
    """Raise KitsError where a NIfTI file's spacing is none: ITK would take 1 mm for it and every volume in mL would be wrong."""
    with _open(path) as stream:
        layout = _layout(stream.read(_HEADER_BYTES))
    if layout is not None and not all(math.isfinite(step) and step > 0 for step in layout.spacing):
        steps = ", ".join(f"{step:g}" for step in layout.spacing)
        raise KitsError(f"{path}: its header gives a spacing of ({steps}) mm; mend the header")


def is_nifti_2(path: Path) -> bool:
    """Whether a file that ITK cannot read begins as NIfTI-2 does: with the size of its header."""
    try:
        with _open(path) as stream:
            return stream.read(4) in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    except KitsError:
        return False


def _layout(header: bytes) -> _Layout | None:
    """What a header says; None where this is not a NIfTI-1 file that holds its own voxels, of one scalar type."""
    if len(header) < _HEADER_BYTES:
        return None
    fields = np.frombuffer(header, _HEADER)[0]
    swapped = not 1 <= fields["dims"] <= 7  # as the NIfTI library decides it
    if swapped:
        fields = np.frombuffer(header, _HEADER.newbyteorder(">"))[0]
    if fields["magic"] != b"n+1" or int(fields["datatype"]) not in _DTYPES:
        return None
    slope, inter, offset = (float(fields[name]) for name in ("scl_slope", "scl_inter", "vox_offset"))
    return _Layout(
        dtype=np.dtype(_DTYPES[int(fields["datatype"])]),
        swapped=swapped,
        offset=max(int(offset), _HEADER_BYTES) if math.isfinite(offset) else _HEADER_BYTES,
        slope=slope if math.isfinite(slope) and slope != 0 else 1.0,
        inter=inter if math.isfinite(inter) else 0.0,
        spacing=tuple(map(float, fields["spacing"])),
    )


@contextmanager
def _open(path: Path) -> Iterator[BufferedIOBase]:
    """The file's bytes, decompressed where its name says so."""
    try:
        with igzip.open(path) if _compressed(path) else path.open("rb") as stream:
            yield stream
    except (EOFError, OSError, igzip_lib.error) as error:  # type: ignore[misc]
        raise KitsError(f"{path}: damaged or incomplete ({last_line(error)}); copy it again") from error


def _compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _refuse_what_cannot_fit(path: Path, expected: int) -> None:
    size = path.stat().st_size
    if _compressed(path) and expected > size * MOST_COMPRESSION:
        raise KitsError(f"{path}: incomplete, {size} compressed bytes cannot hold {expected}; copy it again")
    if not _compressed(path) and expected > size:
        raise KitsError(f"{path}: incomplete, {size} of {expected} bytes; copy it again")


def _fill(stream: BufferedIOBase, array: np.ndarray) -> int:
    """Read an array's bytes; returns how many are missing."""
    rest = array.view(np.uint8).data
    while len(rest) and (count := stream.readinto(rest)):
        rest = rest[count:]
    return len(rest)


def _skip(stream: BufferedIOBase, count: int | None = None) -> int:
    """Read `count` bytes, or all that is left, for nothing; returns how many there were."""
    skipped = 0
    while skipped != count and (part := stream.read(_CHUNK_BYTES if count is None else min(count - skipped, _CHUNK_BYTES))):
        skipped += len(part)
    return skipped
