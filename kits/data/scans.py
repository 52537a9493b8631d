"""The scans at a path (image files, DICOM series, KiTS cases, a list), by names that files can have."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kits.core.errors import KitsError
from kits.data.index import ENDINGS, IMAGE_NAME, RECORDS_NAME
from kits.data.validate import MIN_SLICES

if TYPE_CHECKING:
    from kits.io.series import Skipped
    from kits.volume import Volume

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
# The files that hold the voxels of a header of these formats.
DATA_SUFFIXES = {".hdr": (".img", ".img.gz"), ".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz")}
LIST_SUFFIX = ".txt"
# Most file systems take 255 bytes; what is put behind a name must still fit.
MOST_BYTES = 160
KINDS = "a .nii, .nii.gz, .nrrd, .mha or .mhd file, a folder of them, a folder of DICOM files, or a folder of case_XXXXX"


@dataclass(frozen=True)
class Scan:
    """One scan to segment.

    Attributes:
        name: unique among the scans of a run, and safe as the name of a file.
        path: the image file, or the folder of a DICOM series.
        files: of a DICOM series, in the order of their slices; empty for an image file.
        notes: what a reader of the result should know of how it was found.
    """

    name: str
    path: Path
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def read(self) -> Volume:
        """Read the scan in HU."""
        from kits.io import read_series, read_volume

        return read_series(self.path, self.files) if self.files else read_volume(self.path)

    def identity(self) -> dict[str, int]:
        """Return what tells a changed input from an unchanged one, without reading it."""
        try:
            found = [file.stat() for file in self.files or (self.path,)]
        except OSError:
            return {}
        return {
            "files": len(found),
            "bytes": sum(stat.st_size for stat in found),
            "modified_ns": max(stat.st_mtime_ns for stat in found),
        }


@dataclass(frozen=True)
class Inputs:
    """The scans of a run by name, and what was found beside them and is no scan."""

    scans: dict[str, Scan]
    skipped: list[Skipped]


def find_inputs(path: Path, cases: Sequence[str] | None = None, key: str = "input") -> Inputs:
    """Find every scan at `path`.

    Args:
        path: an image file, a text file that lists paths (one a line, relative to it), a folder of cases or a case of it, or a
            folder of image files or of DICOM files at any depth.
        cases: take only these cases of a folder of cases.
        key: what the configuration calls the path.

    Raises:
        KitsError: nothing there, or nothing that is a scan, or a case that is asked for is not there.
    """
    from kits.io.tree import summary

    try:
        if not path.exists():
            raise KitsError(f"{key}={path}: no such file or folder; give {KINDS}")
        if path.is_dir():
            scans, skipped = _found_in(path)
        else:
            scans, skipped = _listed(path, key) if path.name.lower().endswith(LIST_SUFFIX) else _file(path)
    except OSError as error:
        raise KitsError(f"{key}={path}: cannot be opened ({error.strerror}); check who may read it") from error
    if not scans:
        reasons = summary(skipped)
        found_instead = "".join(f"; {reason}" for reason in reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
        raise KitsError(f"{key}={path}: no scan in it{found_instead}; give {KINDS}")
    named = unique(scans)
    if cases is None:
        return Inputs(named, skipped)
    missing = [case for case in cases if case not in named]
    if missing:
        listed = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise KitsError(f"{key}={path}: no scan of {listed}; take these cases out or add their {IMAGE_NAME}")
    return Inputs({name: scan for name, scan in named.items() if name in set(cases)}, [])


def _file(path: Path) -> tuple[list[Scan], list[Skipped]]:
    """Return an image file, whatever its name; or a DICOM file, which may hold many frames."""
    from kits.io.headers import is_dicom

    with suppress(OSError):  # what cannot be opened is named when it is read
        if path.is_file() and is_dicom(path):
            return _series_in(path)
    return [Scan(stem(path), path)], []


def _found_in(folder: Path) -> tuple[list[Scan], list[Skipped]]:
    """Find a folder of cases or one case; else image files in it, and DICOM series at any depth.

    Whatever else lies there is named, but not a tree's records; of a case, which has a layout of its own, only that it has no
    image.
    """
    from kits.io.series import NOT_DICOM, Skipped

    entries = sorted(folder.iterdir())
    cases = [entry for entry in entries if not entry.name.startswith(".") and (entry / IMAGE_NAME).is_file()]
    if cases:
        others = [entry for entry in entries if entry not in cases and entry.name != RECORDS_NAME]
        lacking = {True: f"no {IMAGE_NAME} in it", False: "no case, in a folder of cases"}
        return [Scan(case.name, case / IMAGE_NAME) for case in cases], [Skipped(one, lacking[one.is_dir()]) for one in others]
    if (folder / IMAGE_NAME).is_file():
        beside = [Skipped(entry, f"beside the {IMAGE_NAME} of a case") for entry in entries if entry.name != IMAGE_NAME]
        return [Scan(folder.resolve().name, folder / IMAGE_NAME)], beside
    images = [entry for entry in entries if has_image_name(entry) and entry.is_file()]
    series, skipped = _series_in(folder)
    data = {image.with_suffix(ending) for image in images for ending in DATA_SUFFIXES.get(image.suffix.lower(), ())}
    skipped = [item for item in skipped if item.path not in data.union(images)]
    for index, item in enumerate(skipped):
        if item.why == NOT_DICOM and has_image_name(item.path):
            skipped[index] = Skipped(item.path, f"an image file in a folder below; give {item.path.parent} or a list of files")
    return [Scan(stem(image), image) for image in images] + series, skipped


def _series_in(path: Path) -> tuple[list[Scan], list[Skipped]]:
    """Find the DICOM series at or below a path, each named by the folder that it lies in."""
    from kits.io.series import find_series

    found, skipped = find_series(path, min_slices=MIN_SLICES)
    several = Counter(one.folder for one in found)
    scans = []
    for one in found:
        name = stem(path) if path.is_file() else "_".join(one.folder.relative_to(path).parts) or path.resolve().name
        if several[one.folder] > 1:
            name += f"_series{one.number or one.uid}"
        scans.append(Scan(name, one.folder, one.files, one.notes))
    return scans, skipped


def _listed(path: Path, key: str) -> tuple[list[Scan], list[Skipped]]:
    """List the scans that a text file names, but for blank lines and those that begin with #."""
    if not path.is_file():  # a pipe would be waited for without end
        raise KitsError(f"{key}={path}: is no regular file; give a text file that has one path a line")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise KitsError(f"{key}={path}: is UTF-16 text; save the list as UTF-8")
    if b"\0" in content:
        raise KitsError(f"{key}={path}: no text; a list has one path a line")
    # Names need not be text: they stand in the list as the system has them.
    lines = [line.strip() for line in re.split(r"[\r\n]+", os.fsdecode(content.removeprefix(codecs.BOM_UTF8)))]
    scans: list[Scan] = []
    skipped: list[Skipped] = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        entry = path.parent / line
        found, left_out = _found_in(entry) if os.path.isdir(entry) else _file(entry)
        scans += found
        skipped += left_out
    return scans, skipped


def has_image_name(path: Path) -> bool:
    """Tell whether a file is one of an image format by its name, and not hidden."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def stem(path: Path) -> str:
    """Return a file's name without the ending of its format; a KiTS case's image is called by its case."""
    if path.name == IMAGE_NAME and path.parent.name != "":
        return path.parent.name
    return path.stem if path.suffix.lower() == ".dcm" else ENDINGS.sub("", path.name)


def unique(scans: Sequence[Scan]) -> dict[str, Scan]:
    """Name the scans safely, no two alike however a file system compares them.

    A name that several have gets a part that follows from the path, so that it does not change when other scans come or go.
    """
    once = list({(scan.path.absolute(), scan.files): scan for scan in scans}.values())
    names = [safe_name(scan.name) for scan in once]
    several = Counter(name.casefold() for name in names)
    found = {}
    for name, scan in zip(names, once, strict=True):
        if several[name.casefold()] > 1:
            place = "\n".join(str(path.absolute()) for path in (scan.path, *scan.files))
            name += f"_{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        found[name] = replace(scan, name=name)
    return found


def safe_name(name: str) -> str:
    """Return a name for files and terminals: letters, digits and `._+-`, not hidden, not too long."""
    cleaned = re.sub(r"[^\w.+-]+", "_", name).lstrip(".-") or "scan"
    while len(cleaned.encode()) > MOST_BYTES:
        cleaned = cleaned[:-1]
    return cleaned
