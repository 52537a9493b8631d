"""Find the CT series in a tree of files by their headers, and name all else with the reason."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from pathlib import Path

import numpy as np

from kits.core.errors import KitsError
from kits.io.headers import Instance, is_dicom, places_of, read_instance
from kits.io.places import Places
from kits.io.tree import Skipped, files_below, summary

NOT_DICOM = "no DICOM file and no image format that is read"
# Of files that may be slices of the series beside them: without them it is shorter than it was.
LOST = ("cannot be opened", "damaged DICOM file")


@dataclass(frozen=True)
class Series:
    """One CT series.

    Attributes:
        folder: where all its files lie, or the folders that hold them.
        files: in the order of their slices.
        number, description: as the scanner named it; may be empty.
        notes: what a reader of the result should know of it.
    """

    uid: str
    folder: Path
    files: tuple[Path, ...]
    number: str
    description: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.uid} ({len(self.files)} files, {self.description or 'no description'})"


@dataclass(frozen=True)
class _Group:
    """Files of one series, of one folder or belonging together; its unfit others are counted by reason."""

    label: str
    instances: list[Instance]
    unfit: Counter[str | None]

    @property
    def folders(self) -> list[Path]:
        return sorted({instance.path.parent for instance in self.instances})


def only_series(path: Path) -> Series:
    """Find the one CT series in a folder or a file.

    Raises:
        KitsError: there is none, or more than one, or a file that may be of it cannot be read.
    """
    found, skipped = find_series(path, min_slices=2)
    if found and (lost := [item for item in skipped if item.why.startswith(LOST)]):
        raise KitsError(f"{lost[0]}; or take it out, if the series is whole without it")
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(map(str, found))
        raise KitsError(f"{path}: {len(found)} DICOM series, move each to a folder of its own: {listed}")
    reasons = summary(skipped)
    found_instead = f" ({'; '.join(reasons[:3])}{'; ...' if len(reasons) > 3 else ''})" if reasons else ""
    raise KitsError(f"{path}: no DICOM series of CT in it{found_instead}; give a folder of DICOM files or an image file")


def find_series(path: Path, *, min_slices: int) -> tuple[list[Series], list[Skipped]]:
    """Find every CT series at or below a path, and name every file that is of none.

    Of a series that is not taken, the series is named. The files of a series are taken together wherever they lie, unless folders
    hold whole stacks at the same place (a copy with other pixels, time points): these are series of their own.

    Args:
        min_slices: series of fewer are skipped.
    """
    groups: dict[tuple[Path, str, str], list[Instance]] = defaultdict(list)
    files, skipped = files_below(path)
    reasons: dict[Path, str | None] = {}
    others = []
    for file in files:
        try:
            if not is_dicom(file):
                others.append(Skipped(file, NOT_DICOM if file.stat().st_size else "empty, 0 bytes; copy it again"))
                continue
            instance = read_instance(file)
            reasons[file] = instance.unfit()
        except OSError as error:
            skipped.append(Skipped(file, f"cannot be opened ({error.strerror}); check who may read it"))
        except Exception as error:  # pydicom raises whatever the damage leads to
            skipped.append(Skipped(file, f"damaged DICOM file ({type(error).__name__}); export it again"))
        else:
            if instance.is_directory:
                others.append(Skipped(file, "table of contents of an export (DICOMDIR); its images are found without it"))
            elif not (uid := instance.text("SeriesInstanceUID")):
                skipped.append(Skipped(file, "damaged DICOM file (it names no series); export it again"))
            else:
                groups[file.parent, uid, instance.text("PatientID")].append(instance)
    fit: dict[tuple[str, ...], list[_Group]] = defaultdict(list)
    for (folder, uid, patient), instances in groups.items():
        label = _label(instances)
        good = [instance for instance in instances if not reasons[instance.path]]
        bad = [instance for instance in instances if reasons[instance.path]]
        if good:
            fit[uid, patient, good[0].text("StudyInstanceUID")].append(
                _Group(label, good, Counter(reasons[one.path] for one in bad))
            )
            skipped += [Skipped(one.path, f"{label}: {reasons[one.path]}, left out") for one in bad]
        else:
            why = "; ".join(dict.fromkeys(filter(None, (reasons[one.path] for one in bad))))
            skipped.append(Skipped(folder, f"{label}: {why}"))
    found = []
    for groups_of_one in fit.values():
        for group in _joined(groups_of_one):
            series, left_out = _judge(group, min_slices, apart=len(groups_of_one) > 1)
            found += [series] if series else []
            skipped += left_out
    lost = Counter(item.path.parent for item in skipped if item.why.startswith(LOST))
    for place, series in enumerate(found):
        if count := sum(lost[folder] for folder in {file.parent for file in series.files}):
            note = f"{count} file(s) beside its own cannot be read and are left out: are slices of it missing?"
            found[place] = replace(series, notes=(*series.notes, note))
    found.sort(key=lambda one: (str(one.folder), int(one.number) if one.number.isdecimal() else 0, one.uid))
    return found, [*skipped, *others]


def _label(instances: Sequence[Instance]) -> str:
    first = instances[0]
    name = first.text("SeriesNumber") or first.text("SeriesInstanceUID")
    return f"series {name} ({first.text('SeriesDescription') or 'no description'}, {len(instances)} file(s))"


def _joined(parts: list[_Group]) -> list[_Group]:
    """Join the parts of a series, one a folder, to one stack, or leave stacks of their own.

    Parts that are none together are taken as one all the same, and refused when they are read, unless they lie at one place.
    """
    instances = [instance for part in parts for instance in part.instances]
    if len(parts) == 1:
        return parts
    places = [places_of(part.instances) for part in parts]
    ranges = [(part.along.min(), part.along.max()) for part in places]
    overlap = any(a[0] <= b[1] and b[0] <= a[1] for a, b in combinations(ranges, 2))
    held = Counter(place for part in places for place in set(map(tuple, np.round(part.positions, 2))))
    own = (
        max(held.values()) > 1
        or len(set(Places.join(places).planes())) > 1
        or (overlap and all(_is_even(part.instances) for part in parts))
    )
    if own and not _is_even(_without_copies(instances)[0]):
        return parts
    return [_Group(_label(instances), instances, sum((part.unfit for part in parts), Counter()))]


def _is_even(instances: Sequence[Instance]) -> bool:
    places = places_of(instances)
    return len(places) > 1 and len(set(places.planes())) == 1 and places[places.order].uneven() is None


def _owners(instances: Sequence[Instance]) -> list[Instance]:
    """Return the file that holds each slice."""
    return [instance for instance in instances for _ in instance.frames]


def _judge(group: _Group, min_slices: int, *, apart: bool) -> tuple[Series | None, list[Skipped]]:
    """Make a series of a group of files, or None; and what is left out: copies and the odd picture."""
    instances, copies = _without_copies(group.instances)
    left_out = [Skipped(copy.path, f"{group.label}: a copy of another file of it, left out") for copy in copies]
    planes = places_of(instances).planes()
    kinds = Counter(planes.tolist()).most_common()
    odd = {id(owner) for owner, plane in zip(_owners(instances), planes, strict=True) if plane != kinds[0][0]}
    kept = [instance for instance in instances if id(instance) not in odd]
    if odd and (not kept or not kinds[0][1] >= min_slices > kinds[1][1]):
        sizes = ", ".join("{} of {} x {}".format(count, *places_of(instances).sizes[plane]) for plane, count in kinds)
        why = f"mixed: images of {len(kinds)} planes or sizes ({sizes}); export each as its own series"
        return None, [Skipped(group.folders[0], f"{group.label}: {why}"), *left_out]
    why = f"{group.label}: of another plane or size than its other slices (a scout?), left out"
    left_out += [Skipped(instance.path, why) for instance in instances if id(instance) in odd]
    places = places_of(kept)
    if len(places) < min_slices:
        why = "only one slice" if len(places) == 1 else f"only {len(places)} slices"
        return None, [Skipped(group.folders[0], f"{group.label}: {why}"), *left_out]
    owners = _owners(kept)
    files = tuple(dict.fromkeys(owners[index].path for index in places.order))
    first, folders = kept[0], sorted({file.parent for file in files})
    folder = Path(os.path.commonpath(folders))
    unfit = group.unfit + Counter({"of another plane or size": len(odd)})
    notes = [*_notes(kept, places), *(f"{count} file(s) of it left out: {why}" for why, count in unfit.items())]
    if len(folders) > 1:
        notes.append(f"its {len(files)} files lie in {len(folders)} folders and are taken together")
    elif apart and len(group.folders) == 1:
        notes.append("other folders hold slices of the same series; they are taken as scans of their own")
    number, description = first.text("SeriesNumber"), first.text("SeriesDescription")
    return Series(first.text("SeriesInstanceUID"), folder, files, number, description, tuple(notes)), left_out


def _notes(instances: Sequence[Instance], places: Places) -> list[str]:
    first = instances[0]
    notes = []
    if not all(instance.has_ct_class for instance in instances):
        kind = getattr(first.header.get("SOPClassUID"), "name", "") or "none"
        notes.append(f"its DICOM class is {kind}, not CT; it is taken as CT by its modality, rescale and positions")
    if first.text("Modality") != "CT":
        notes.append(f"its modality is {first.text('Modality') or 'missing'}; it is taken as CT by its class")
    if (frames := len({instance.text("FrameOfReferenceUID") for instance in instances})) > 1:
        notes.append(f"its slices name {frames} frames of reference: did the patient move, or are they of several scans?")
    owners = _owners(instances)
    runs = [number for number, _ in groupby(owners[index].text("AcquisitionNumber") for index in places.order)]
    if len(runs) > (several := len(set(runs))):
        notes.append(f"slices of {several} acquisitions lie between each other: if these are time points, export each by itself")
    if any(instance.text("PhotometricInterpretation") == "MONOCHROME1" for instance in instances):
        notes.append("it is shown inverted (MONOCHROME1); its stored values are taken as they are")
    return notes


def _without_copies(instances: Sequence[Instance]) -> tuple[list[Instance], list[Instance]]:
    """Return the files without those that hold the slices and pixels of another one, and these.

    Pixels are read of files at one place only, whatever their identifiers say: these are often replaced or blanked.
    """
    at: dict[tuple[bytes, bytes], list[Instance]] = defaultdict(list)
    for instance in instances:
        assert instance.places is not None
        place = np.round(instance.places.positions, 3) + 0.0
        at[place.tobytes(), np.round(instance.places.cosines, 3).tobytes()].append(instance)
    copies: set[Path] = set()
    for first, *more in at.values():
        for other in more:
            if _pixels_of(other) == _pixels_of(first):
                copies.add(other.path)
            else:  # other images at the same places: whether they are even is judged later, and none needs to be read now
                return list(instances), []
    kept = [instance for instance in instances if instance.path not in copies]
    return kept, [instance for instance in instances if instance.path in copies]


def _pixels_of(instance: Instance) -> tuple[bytes, bytes]:
    """Digest the pixels and their rescale, alike for the same HU; an unreadable file is like no other."""
    import pydicom

    try:
        stored = pydicom.dcmread(instance.path, specific_tags=["PixelData"], force=True).get("PixelData")
    except Exception:  # whatever its damage leads to
        stored = None
    return hashlib.sha256(stored or os.fsencode(instance.path)).digest(), instance.rescale.tobytes()
