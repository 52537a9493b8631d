"""Text headers of NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd): where and how voxels are kept.

ITK reads their geometry. Its own unpacking passes damage over: of 120 files with one flipped bit it took 119.
NRRD: teem.sourceforge.net/nrrd/format.html; MetaImage: itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kits.core.errors import KitsError
from kits.io.stored import BZIP2, GZIP, RAW, ZLIB, Stored, is_gzip

# A header is some hundred bytes, more where it lists its files; nobody waits for the end of a line that never comes.
_MOST_BYTES = 1 << 20
_DATA_FILE = re.compile(rb"(?im)^(?:data ?file: *|\s*ElementDataFile\s*[=:]\s*)(.*?)\s*$")
# As `slice%03d.raw 1 40 1`.
_PATTERN = re.compile(r"(.*)%(0?\d{0,2})d(\S*)\s+(\d+)\s+(\d+)(?:\s+(\d+))?(?:\s+\d+)?")
# What NRRD says of the directions of its space and ITK understands; any other it takes for the first.
_SPACES = ("left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las")
_ENCODINGS = {"raw": RAW, "gzip": GZIP, "gz": GZIP, "bzip2": BZIP2, "bz2": BZIP2}
_MM = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")


@dataclass(frozen=True)
class TextHeader:
    """The fields of a header by their names, and where in the file it ends."""

    path: Path
    fields: dict[str, str]
    end: int

    def get(self, *names: str) -> str | None:
        """Return the first of these fields that there is."""
        return next((self.fields[name] for name in names if name in self.fields), None)

    def data_file(self, name: str | None, itself: str | None) -> tuple[Path, int] | None:
        """Return the file of the voxels and where in it they begin; None for several files."""
        if name == itself or (itself and name and name.upper() == itself):
            return self.path, self.end
        if name is None or re.match(r"LIST\b", name) or "%" in name:
            return None
        return self.path.parent / name, 0


def find_voxels(path: Path, kind: str, dtype: np.dtype) -> Stored | None:
    """Find the voxels; None where ITK reads them: text, several files, parts of a file.

    None of these is packed. To be asked after `refuse_missing`.

    Args:
        kind: as ITK calls the format.
        dtype: of the voxels, as ITK read it.

    Raises:
        KitsError: the header gives no spacing, or the voxels are packed in a way whose damage could not be seen.
    """
    return _nrrd(path, dtype) if kind == "NrrdImageIO" else _meta(path, dtype)


def refuse_missing(path: Path) -> None:
    """Refuse a header whose named file of voxels is none: ITK would wait for a pipe without end."""
    for file in _data_files(path):
        if not file.is_file():
            raise KitsError(f"{path}: incomplete, no {file.name} beside it; copy all files again")


def _data_files(path: Path) -> list[Path]:
    """List the files that a header names, one or a list or by a pattern; none if it holds its voxels."""
    with path.open("rb") as stream:
        begin = stream.read(_MOST_BYTES)
    if (found := _DATA_FILE.search(begin)) is None or found[1].upper() in (b"LOCAL", b""):
        return []
    name = os.fsdecode(found[1])
    if re.match(r"LIST\b", name):
        names = [os.fsdecode(line.strip()) for line in begin[found.end() :].splitlines() if line.strip()]
    elif pattern := _PATTERN.fullmatch(name):
        first, last, step = int(pattern[4]), int(pattern[5]), int(pattern[6] or 1)
        numbers = range(first, last + 1, step or 1)[:_MOST_BYTES]
        names = [f"{pattern[1]}{number:{pattern[2]}d}{pattern[3]}" for number in numbers]
    else:
        names = [name]
    return [path.parent / name for name in names]


def _nrrd(path: Path, dtype: np.dtype) -> Stored | None:
    header = _read(path, re.compile(rb"\r?\n\r?\n"), re.compile(r"([^:=#]+): *(.*)"))
    _refuse_spacing(header, header.get("spacings", "space directions"))
    if header.get("space directions") is None:
        raise KitsError(f"{path}: its header does not say which side is left (no space directions); convert it from the original")
    if (header.get("space") or "").lower() not in _SPACES:
        what = f"does not say which side is left (its space is {header.get('space') or 'not named'})"
        raise KitsError(f"{path}: its header {what}; write the true one into it, such as left-posterior-superior")
    units = set(re.findall(r'"([^"]*)"', header.get("space units") or ""))
    if not units <= set(_MM):
        raise KitsError(f"{path}: its header gives lengths in {', '.join(sorted(units))}; convert it to mm")
    place = header.data_file(header.get("data file", "datafile"), None)
    encoding = _ENCODINGS.get((header.get("encoding") or "").lower())
    skips = [header.get(*names) or "0" for names in (("line skip", "lineskip"), ("byte skip", "byteskip"))]
    if place is None or encoding is None or skips != ["0", "0"]:
        _refuse_parts(path, packed=encoding not in (None, RAW))
        return None
    return _stored(path, place, encoding, dtype, swapped=(header.get("endian") or "little").lower() == "big")


def _meta(path: Path, dtype: np.dtype) -> Stored | None:
    header = _read(path, re.compile(rb"(?m)^\s*ElementDataFile\s*[=:].*\n?"), re.compile(r"\s*(\w+)\s*[=:]\s*(.*)"))
    _refuse_spacing(header, header.get("elementspacing", "elementsize"))
    if header.get("transformmatrix", "rotation", "orientation") is None:
        raise KitsError(f"{path}: its header does not say which side is left (no TransformMatrix); convert it from the original")
    origin = header.get("offset", "position", "origin") or ""
    if not all(map(math.isfinite, _numbers(origin))):
        raise KitsError(f"{path}: its header gives an origin of {origin} mm; mend the header")
    if (unit := (header.get("distanceunits") or "?").lower()) not in ("?", *_MM):
        raise KitsError(f"{path}: its header gives lengths in {unit}; convert it to mm")
    scale = [*_numbers(header.get("elementtointensityfunctionslope") or "1")]
    scale += _numbers(header.get("elementtointensityfunctionoffset") or "0")
    if scale != [1, 0]:
        what = f"values as stored * {' + '.join(map(str, scale))}, which most readers leave out"
        raise KitsError(f"{path}: its header gives {what}; write the values themselves")
    place = header.data_file(header.get("elementdatafile"), "LOCAL")
    packed = _is_true(header.get("compresseddata"))
    parts = re.match(r"LIST\s+(\d+)", header.get("elementdatafile") or "")
    if parts and int(parts[1]) != 2:  # ITK returns memory that nobody wrote
        raise KitsError(f"{path}: lists files of {parts[1]} dimensions; list one a slice, or save it as one .nrrd or .mha")
    if place is None or not _is_true(header.get("binarydata") or "true") or (header.get("headersize") or "0") != "0":
        _refuse_parts(path, packed=packed)
        held = sum(file.stat().st_size for file in _data_files(path))
        expected = math.prod(_numbers(header.get("dimsize") or "")) * dtype.itemsize
        if place is None and held < expected:  # ITK makes up what is missing
            raise KitsError(f"{path}: incomplete, its files hold {held} of {expected:.0f} bytes; copy all files again")
        return None
    swapped = _is_true(header.get("binarydatabyteordermsb", "elementbyteordermsb"))
    return _stored(path, place, ZLIB if packed else RAW, dtype, swapped=swapped)


def _stored(path: Path, place: tuple[Path, int], encoding: str, dtype: np.dtype, *, swapped: bool) -> Stored:
    file, start = place
    if encoding == ZLIB and is_gzip(file) and not start:  # ITK takes either
        encoding = GZIP
    return Stored(file, dtype, swapped and dtype.itemsize > 1, encoding, start)


def _refuse_parts(path: Path, *, packed: bool) -> None:
    if packed:
        raise KitsError(f"{path}: compressed in parts, whose damage could not be seen; save it as one .nrrd, .mha or .nii.gz")


def _read(path: Path, end: re.Pattern[bytes], field: re.Pattern[str]) -> TextHeader:
    with path.open("rb") as stream:
        begin = stream.read(_MOST_BYTES)
    found = end.search(begin)
    place = found.end() if found else len(begin)
    matches = (field.fullmatch(line.strip()) for line in begin[:place].decode("utf-8", "surrogateescape").splitlines())
    return TextHeader(path, {match[1].strip().lower(): match[2].strip() for match in matches if match}, place)


def _refuse_spacing(header: TextHeader, given: str | None) -> None:
    """Refuse a header without a spacing, or without that of one axis (NRRD's none): ITK would take 1 mm."""
    if given is None or re.search("nan|none", given.lower()):
        raise KitsError(f"{header.path}: its header gives no spacing; write the true one into it, or convert the scan again")


def _numbers(text: str) -> list[float]:
    """Return the numbers of a field, NaN where it has none."""
    try:
        return list(map(float, text.split()))
    except ValueError:
        return [math.nan]


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("true", "t", "1", "yes")
