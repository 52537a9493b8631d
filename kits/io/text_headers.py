"""Text headers of NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd): where the voxels are and how they are packed.

ITK reads their geometry. Its own unpacking passes damage over: of 120 files with one flipped bit it took 119.
NRRD: teem.sourceforge.net/nrrd/format.html; MetaImage: itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kits.errors import KitsError
from kits.io.stored import BZIP2, GZIP, RAW, ZLIB, Stored, is_gzip

# A header is some hundred bytes; nobody waits for the end of a line that never comes.
_MOST_BYTES = 1 << 16
_ENCODINGS = {"raw": RAW, "gzip": GZIP, "gz": GZIP, "bzip2": BZIP2, "bz2": BZIP2}
_MM = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")


@dataclass(frozen=True)
class TextHeader:
    """The fields of a header by their names, and where in the file it ends."""

    path: Path
    fields: dict[str, str]
    end: int

    def get(self, *names: str) -> str | None:
        """The first of these fields that there is."""
        return next((self.fields[name] for name in names if name in self.fields), None)

    def data_file(self, name: str | None, itself: str | None) -> tuple[Path, int] | None:
        """The file of the voxels and where in it they begin; None for several files."""
        if name == itself:
            return self.path, self.end
        if name is None or re.match(r"LIST\b", name) or "%" in name:
            return None
        return self.path.parent / name, 0


def find_voxels(path: Path, kind: str, dtype: np.dtype) -> Stored | None:
    """Where the voxels are; None where that is left to ITK: text, several files, parts of a file. None of these is packed.

    Args:
        kind: as ITK calls the format.
        dtype: of the voxels, as ITK read it.

    Raises:
        KitsError: the header gives no spacing, or the voxels are packed in a way whose damage could not be seen.
    """
    return _nrrd(path, dtype) if kind == "NrrdImageIO" else _meta(path, dtype)


def _nrrd(path: Path, dtype: np.dtype) -> Stored | None:
    header = _read(path, re.compile(rb"\r?\n\r?\n"), re.compile(r"([^:=#]+): *(.*)"))
    _refuse_spacing(header, header.get("spacings", "space directions"))
    if header.get("space directions") is None:
        raise KitsError(f"{path}: its header does not say which side is left (no space directions); convert it from the original")
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
    place = header.data_file(header.get("elementdatafile"), "LOCAL")
    packed = _is_true(header.get("compresseddata"))
    if place is None or not _is_true(header.get("binarydata") or "true") or (header.get("headersize") or "0") != "0":
        _refuse_parts(path, packed=packed)
        return None
    swapped = _is_true(header.get("binarydatabyteordermsb", "elementbyteordermsb"))
    return _stored(path, place, ZLIB if packed else RAW, dtype, swapped=swapped)


def _stored(path: Path, place: tuple[Path, int], encoding: str, dtype: np.dtype, *, swapped: bool) -> Stored:
    file, start = place
    if not file.is_file():
        raise KitsError(f"{path}: incomplete, no {file.name} beside it; copy both files again")
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
    """ITK would take 1 mm."""
    if given is None or "nan" in given.lower():
        raise KitsError(f"{header.path}: its header gives no spacing; write the true one into it, or convert the scan again")


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("true", "t", "1", "yes")
