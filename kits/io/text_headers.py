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
from kits.volume import Grid

# A header is some hundred bytes, more where it lists its files; nobody waits for the end of a line that never comes.
_MOST_BYTES = 1 << 20
_DATA_FILE = re.compile(rb"(?im)^(?:data ?file: *|\s*ElementDataFile\s*[=:]\s*)(.*?)\s*$")
# As `slice%03d.raw 1 40 1`.
_PATTERN = re.compile(r"(.*)%(0?\d{0,2})d(\S*)\s+(\d+)\s+(\d+)(?:\s+(\d+))?(?:\s+\d+)?")
# What NRRD says of the directions of its space and ITK understands; any other it takes for the first.
_SPACES = ("left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las")
_ENCODINGS = {"raw": RAW, "gzip": GZIP, "gz": GZIP, "bzip2": BZIP2, "bz2": BZIP2}
# Of each format where a header ends, and what a line with a field is.
_SYNTAX = {
    "NrrdImageIO": (re.compile(rb"\r?\n\r?\n"), re.compile(r"([^:=#]+): *(.*)")),
    "MetaImageIO": (re.compile(rb"(?m)^\s*ElementDataFile\s*[=:].*\n?"), re.compile(r"\s*(\w+)\s*[=:]\s*(.*)")),
}
_MM = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")
# How many numbers a field of either format has in three dimensions.
_SIZE, _ORIGIN = ("sizes", "dimsize"), ("space origin", "offset", "position", "origin")
_SPACING, _MATRIX = (
    ("spacings", "elementspacing", "elementsize"),
    ("space directions", "transformmatrix", "rotation", "orientation"),
)
_COUNTS = dict.fromkeys((*_SIZE, *_ORIGIN, *_SPACING), 3) | dict.fromkeys(_MATRIX, 9) | {"headersize": 1}


@dataclass(frozen=True)
class TextHeader:
    """The fields of a header by their names, and where in the file it ends."""

    path: Path
    fields: dict[str, str]
    end: int

    def get(self, *names: str) -> str | None:
        """Return the first of these fields that there is."""
        return next((self.fields[name] for name in names if name in self.fields), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """Tell what is assumed of the geometry where the header says nothing."""
        return () if self.get(*_ORIGIN) else ("its header gives no origin, which is taken as (0, 0, 0) mm",)

    def numbers(self, *names: str) -> list[float]:
        """Return the numbers of the first of these fields that there is, NaN where it has none."""
        return _numbers(self.get(*names) or "")

    def data_file(self, name: str | None, itself: str | None) -> tuple[Path, int] | None:
        """Return the file of the voxels and where in it they begin; None for several files."""
        if name == itself or (itself and name and name.upper() == itself):
            return self.path, self.end
        if name is None or re.match(r"LIST\b", name) or "%" in name:
            return None
        return self.path.parent / name, 0


def read_header(path: Path, kind: str) -> TextHeader:
    """Read a header before ITK does, and refuse what ITK would not.

    ITK waits for a pipe without end, and passes over a field with too few numbers and all behind it.

    Args:
        kind: as ITK calls the format.

    Raises:
        KitsError: a file of voxels is missing, it is not of three dimensions, or its numbers are none.
    """
    for file in _data_files(path):
        if not file.is_file():
            raise KitsError(f"{path}: incomplete, no {file.name} beside it; copy all files again")
    end, field = _SYNTAX[kind]
    with path.open("rb") as stream:
        begin = stream.read(_MOST_BYTES)
    found = end.search(begin)
    place = found.end() if found else len(begin)
    matches = (field.fullmatch(line.strip()) for line in begin[:place].decode("utf-8", "surrogateescape").splitlines())
    header = TextHeader(path, {match[1].strip().lower(): match[2].strip() for match in matches if match}, place)
    # NRRD ends its header at the first empty line, and what follows would be voxels.
    if kind == "NrrdImageIO" and (line := re.match(rb"[A-Za-z][\w ]{3,}:[= ][ -~]+\r?\n", begin[place : place + 200])):
        told = line[0].decode().strip()
        raise KitsError(f"{path}: an empty line stands within its header, before '{told}'; take that line out")
    if (dimensions := header.get("dimension", "ndims") or "3") != "3":
        raise KitsError(f"{path}: is {dimensions}D, of size {header.get(*_SIZE)}; give one 3D image with one value per voxel")
    for name in header.fields.keys() & _COUNTS.keys():
        numbers = header.numbers(name)
        if len(numbers) != _COUNTS[name] or not all(map(math.isfinite, numbers)):
            what = f"a field '{name}' of '{header.fields[name][:80]}', not of {_COUNTS[name]} number{'s' * (_COUNTS[name] > 1)}"
            raise KitsError(f"{path}: its header has {what}; mend the header (decimals have points)")
    return header


def find_voxels(header: TextHeader, kind: str, dtype: np.dtype, grid: Grid) -> Stored | None:
    """Find the voxels; None where ITK reads them: text, several files, parts of a file.

    None of these is packed.

    Args:
        dtype, grid: of the voxels, as ITK read them.

    Raises:
        KitsError: the header gives no spacing, or the voxels are packed in a way whose damage could not be seen.
    """
    return _nrrd(header, dtype) if kind == "NrrdImageIO" else _meta(header, dtype, grid)


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


def _nrrd(header: TextHeader, dtype: np.dtype) -> Stored | None:
    path = header.path
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


def _meta(header: TextHeader, dtype: np.dtype, grid: Grid) -> Stored | None:
    path = header.path
    _refuse_spacing(header, header.get(*_SPACING))
    if header.get(*_MATRIX) is None:
        raise KitsError(f"{path}: its header does not say which side is left (no TransformMatrix); convert it from the original")
    given = [
        *header.numbers(*_SIZE),
        *header.numbers(*_SPACING),
        *(header.numbers(*_ORIGIN) or (0, 0, 0)),
        *header.numbers(*_MATRIX),
    ]
    taken = [*grid.size, *grid.spacing, *grid.origin, *np.reshape(grid.direction, (3, 3)).T.ravel()]
    if not np.allclose(
        given, taken, rtol=0, atol=1e-3
    ):  # ITK knows exact names alone, and reads nothing behind a line that is none
        what = "programs pass over a part of its header"
        raise KitsError(f"{path}: {what}; write all its lines as Name = value, with names spelled as in ElementSpacing")
    if (unit := (header.get("distanceunits") or "?").lower()) not in ("?", *_MM):
        raise KitsError(f"{path}: its header gives lengths in {unit}; convert it to mm")
    scale = _numbers(header.get("elementtointensityfunctionslope") or "1")
    scale += _numbers(header.get("elementtointensityfunctionoffset") or "0")
    if scale != [1, 0]:
        what = f"values as stored * {' + '.join(map(str, scale))}, which most readers leave out"
        raise KitsError(f"{path}: its header gives {what}; write the values themselves")
    place = header.data_file(header.get("elementdatafile"), "LOCAL")
    packed = _is_true(header.get("compresseddata"))
    parts = re.match(r"LIST\s+(\d+)", header.get("elementdatafile") or "")
    if parts and int(parts[1]) != 2:  # ITK returns memory that nobody wrote
        raise KitsError(f"{path}: lists files of {parts[1]} dimensions; list one a slice, or save it as one .nrrd or .mha")
    before = int(float(header.get("headersize") or 0))  # bytes of the data's file that are no voxels
    if place and place[0] != path and before and not packed:
        behind = place[0].stat().st_size - math.prod(grid.size) * dtype.itemsize
        place, before = (place[0], before if before > 0 else max(0, behind)), 0  # -1: whatever there is
    if place is None or not _is_true(header.get("binarydata") or "true") or before:
        _refuse_parts(path, packed=packed)
        held = sum(file.stat().st_size for file in _data_files(path))
        expected = math.prod(header.numbers("dimsize")) * dtype.itemsize
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


def _refuse_spacing(header: TextHeader, given: str | None) -> None:
    """Refuse a header without a spacing: ITK would take 1 mm."""
    if given is None:
        raise KitsError(f"{header.path}: its header gives no spacing; write the true one into it, or convert the scan again")


def _numbers(text: str) -> list[float]:
    """Return the numbers of a field, as of `7 6 5` or `(1,0,0) (0,1,0)`; NaN where there are none."""
    try:
        return list(map(float, re.sub(r"[(),]" if "(" in text else r"\s", " ", text).split()))
    except ValueError:
        return [math.nan]


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("true", "t", "1", "yes")
