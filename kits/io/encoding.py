"""Arrays to NIfTI-1 and NRRD files, slab by slab; a full disk is an error.

ITK writes NIfTI's header, but not its voxels: on a full disk it leaves a cut file and reports success.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
from isal import igzip

from kits.volume import Grid, stored_order

# 348 bytes of header and four that say that no extension follows (nifti1.h); `dim` are eight int16 from byte 40 on.
_HEADER_BYTES, _SIZE_AT, _SLOPE_AT = 352, 42, 112
# What is copied into the file's order and compressed at a time.
_SLAB_BYTES = 1 << 22
# Of igzip's levels 0 to 3: a label map takes some 1.4 times the bytes of zlib's level 6, in a quarter of its time.
_LEVEL = 2


def write_nifti(path: Path, array: np.ndarray, grid: Grid, unit: float = 1.0) -> None:
    """Write an array (z, y, x) in LPS order as .nii.gz of the geometry `grid`, the same bytes each time.

    Args:
        unit: what a stored number is multiplied by to give its value, as the header says to whoever reads it.

    Raises:
        ValueError: the array has another shape than the grid.
        OSError: the file cannot be written, or not wholly.
    """
    stored = stored_order(array, grid)
    with path.open("wb") as file, _compressed(file) as stream:
        stream.write(_header(grid, array.dtype, unit))
        _write_slabs(stream, stored)


def write_nrrd(path: Path, array: np.ndarray, grid: Grid, fields: Mapping[str, str]) -> None:
    """Write a uint8 array (z, y, x) in LPS order as compressed .nrrd, with these key/value pairs.

    Raises:
        ValueError: the array has another shape than the grid or another type.
        OSError: the file cannot be written, or not wholly.
    """
    if array.dtype != np.uint8:
        raise ValueError(f"written as unsigned char, and not {array.dtype}")
    stored = stored_order(array, grid)
    lines = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, grid.size))}",
        f"space directions: {' '.join(map(_vector, grid.steps.T))}",
        "kinds: domain domain domain",
        "encoding: gzip",
        f"space origin: {_vector(grid.origin)}",
        *(f"{key}:={value}" for key, value in fields.items()),
    ]
    with path.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        with _compressed(file) as stream:
            _write_slabs(stream, stored)


def _vector(numbers: Iterable[float]) -> str:
    """Return numbers with every digit that a float64 has."""
    return f"({','.join(repr(float(number)) for number in numbers)})"


def _write_slabs(stream: igzip.IGzipFile, stored: np.ndarray) -> None:
    step = max(1, _SLAB_BYTES // max(1, stored[0].nbytes))
    for start in range(0, len(stored), step):
        stream.write(np.ascontiguousarray(stored[start : start + step]).data)


def _compressed(file: BinaryIO) -> igzip.IGzipFile:
    """Return a stream whose header names no file and no time."""
    return igzip.IGzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


def _header(grid: Grid, dtype: np.dtype, unit: float) -> bytes:
    """Return ITK's header of an image of this geometry: that of a single voxel, with the size put in."""
    voxel = sitk.GetImageFromArray(np.zeros((1, 1, 1), dtype))
    voxel.SetSpacing(grid.spacing)
    voxel.SetOrigin(grid.origin)
    voxel.SetDirection(grid.direction)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "voxel.nii"
        sitk.WriteImage(voxel, path)
        header = bytearray(path.read_bytes()[:_HEADER_BYTES])
    header[_SIZE_AT : _SIZE_AT + 6] = np.array(grid.size, "=i2").tobytes()
    if unit != 1:
        header[_SLOPE_AT : _SLOPE_AT + 4] = np.array(unit, "=f4").tobytes()
    return bytes(header)
