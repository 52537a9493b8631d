"""Find the label maps at a path, files or DICOM segmentations, each with its CT where one is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kits.core.errors import KitsError
from kits.core.labels import CLASSES, TUMOR
from kits.readout.intervals import POSSIBLE, SURE
from kits.volume import Grid, Volume, bring_to, compare, lay_into

if TYPE_CHECKING:
    from kits.data.scans import Scan

# By class the label ids that stand for it in a file.
OWN_IDS: Mapping[str, Sequence[int]] = {name: [number] for number, name in enumerate(CLASSES) if number}


@dataclass(frozen=True)
class LabelMap:
    """One label map to measure, and its CT where there is one.

    Attributes:
        probabilities: of a tumor at each voxel, as `kits.predict save=[labels,probabilities]` writes them beside it.
        members: label maps of the same case by others.
    """

    name: str
    path: Path
    scan: Scan | None = None
    probabilities: Path | None = None
    members: tuple[Path, ...] | None = None

    def identity(self) -> dict[str, Any]:
        """Describe the files, so that a later run can tell whether one was changed."""
        stat = self.path.stat()
        image = None if self.scan is None else self.scan.identity()
        beside = [path for path in (self.probabilities, *(self.members or ())) if path is not None]
        doubt = [[path.stat().st_size, path.stat().st_mtime_ns] for path in beside]
        return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "image": image, "doubt": doubt}

    def read(self, ids: Mapping[str, Sequence[int]] = OWN_IDS) -> tuple[Volume, list[str]]:
        """Read the labels (z, y, x), 0 background, 1 kidney, 2 tumor, 3 cyst, with warnings.

        Args:
            ids: by class the label ids that stand for it in a file; of a DICOM segmentation its codes say what is what.

        Raises:
            KitsError: the file is damaged or holds another label.
        """
        return _labels_at(self.path, ids)

    def others(self, grid: Grid, ids: Mapping[str, Sequence[int]] = OWN_IDS) -> Iterator[np.ndarray]:
        """Read the other masks of tumor, bool (z, y, x): of each member, and by probability.

        On this map's grid.

        Raises:
            KitsError: a file is damaged, or of another grid.
        """
        from kits.io import read_probabilities

        for path in self.members or ():
            yield _beside(grid, _labels_at(path, ids)[0], path) == TUMOR
        if self.probabilities is not None:
            values = _beside(grid, read_probabilities(self.probabilities), self.probabilities)
            for level in (SURE, POSSIBLE):
                yield values >= 255 * level


def _labels_at(path: Path, ids: Mapping[str, Sequence[int]]) -> tuple[Volume, list[str]]:
    """Read a label map of any kind; see `LabelMap.read`."""
    from kits.io import read_labels
    from kits.prediction.dicom_labels import is_dicom_seg, read_dicom_seg

    if is_dicom_seg(path):
        return read_dicom_seg(path)
    table = np.zeros(256, np.uint8)
    for name, numbers in ids.items():
        table[list(numbers)] = CLASSES.index(name)
    labels = read_labels(path, allowed=[0, *(number for numbers in ids.values() for number in numbers)])
    if np.array_equal(np.flatnonzero(table), np.flatnonzero(table == np.arange(256))[1:]):
        return labels, []
    return Volume(table[labels.array], labels.spacing, labels.grid), []


def _beside(grid: Grid, found: Volume, path: Path) -> np.ndarray:
    """Bring the voxels of another map to the label map's grid.

    One with another header is a mistake, so it is refused.
    """
    if differs := compare(found.grid, grid):
        raise KitsError(f"{path}: {differs}, as the label map that it belongs to has")
    return bring_to(grid, found)


def on_grid_of(volume: Volume, labels: Volume, name: str) -> tuple[np.ndarray, list[str]]:
    """Bring labels (z, y, x) to the grid of their CT, and tell how the two headers differ.

    Raises:
        KitsError: the label map is neither of the CT's size nor a part of it.
    """
    if labels.array.shape == volume.array.shape or labels.grid.size == volume.grid.size:
        differs = compare(labels.grid, volume.grid)
        told = [f"the label map's header is not its CT's: {differs}; the CT's is taken for both"] if differs else []
        return bring_to(volume.grid, labels), told
    whole = lay_into(volume.grid, labels)
    if whole is None:
        raise KitsError(
            f"{name}: {labels.array.shape} voxels (z, y, x), but its CT has {volume.array.shape}, and the map is no part of it;"
            " the two are not one case, or one was resampled"
        )
    return whole, []


def find_maps(
    path: Path, image: Path | None, cases: Sequence[str] | None, *, label_name: str, members: Sequence[Path] | None = None
) -> list[LabelMap]:
    """Find the label maps at a path: a file, a folder, a KiTS tree, or DICOM segmentations below it.

    By any name that KiTS and nnU-Net give.

    Args:
        image: their CT, as `kits.predict` takes it.
        cases: only these.
        label_name: file name of the label maps in a tree, `data.label_name`.
        members: folders, or files where there is one map, with label maps of the same cases by others.

    Raises:
        KitsError: nothing there, no label map in it, or a map without one of `members` or, where `image` is given, a CT.
    """
    from kits.data.index import KNOWN, match

    named = _named(path, label_name)
    if not named:
        raise KitsError(f"input={path}: no label map in it; give label maps with names such as {KNOWN}, or DICOM segmentations")
    if cases is not None:
        found = match(cases, {name: [file] for name, file in named.items()})
        missing = [case for case in cases if case not in found]
        if missing:
            raise KitsError(f"input={path}: no label map of {', '.join(missing)}; take these cases out")
        named = found
    members = members or []
    by_member = [_named(member, label_name, key="members") for member in members]
    maps = []
    for name, file in named.items():
        own = [match([name], {other: [one] for other, one in member.items()}) for member in by_member]
        if len(named) == 1:
            own = [
                one if one or len(member) != 1 else {name: next(iter(member.values()))}
                for one, member in zip(own, by_member, strict=True)
            ]
        lacking = next((member for one, member in zip(own, members, strict=True) if not one), None)
        if lacking is not None:
            raise KitsError(f"members: {lacking} has no label map of {name}; give the output of kits.predict for the same scans")
        maps.append(LabelMap(name, file, None, _probabilities(file), tuple(one[name] for one in own)))
    return maps if image is None else _with_scans(maps, image)


def _with_scans(maps: Sequence[LabelMap], image: Path) -> list[LabelMap]:
    """Give each label map its CT."""
    from kits.data.index import match
    from kits.data.scans import find_inputs

    scans = find_inputs(image, key="image").scans
    if len(scans) == 1 and len(maps) == 1:
        return [replace(maps[0], scan=next(iter(scans.values())))]
    named = [job.name for job in maps]
    images = match(named, {name: [scan.path] for name, scan in scans.items()})
    by_path = {scan.path: scan for scan in scans.values()}
    own = {name: scans.get(name) or by_path.get(images.get(name, Path())) for name in named}
    lacking = [name for name, scan in own.items() if scan is None]
    if lacking:
        raise KitsError(
            f"image={image}: no CT of {lacking[0]} ({len(lacking)} of {len(named)} lack one); give those of all, or leave it out"
        )
    return [replace(job, scan=own[job.name]) for job in maps]


def _probabilities(path: Path) -> Path | None:
    """Find the tumor's probabilities that kits.predict wrote beside a label map; else None."""
    from kits.data.scans import stem
    from kits.prediction.outputs import ENDING, PROBABILITIES

    name = f"{stem(path)}_{CLASSES[TUMOR]}{ENDING}"
    return next((place for place in (path.parent / PROBABILITIES / name, path.with_name(name)) if place.is_file()), None)


def _named(path: Path, label_name: str, key: str = "input") -> dict[str, Path]:
    """Find the label maps at a path, by the names of their cases."""
    from kits.data.index import label_maps
    from kits.data.scans import Scan, stem, unique
    from kits.io.tree import files_below
    from kits.prediction.dicom_labels import is_dicom_seg

    if not path.exists():
        raise KitsError(f"{key}={path}: no such file or folder; give a label map, a folder of them or a KiTS tree")
    if path.is_file():
        return {stem(path): path}
    found = label_maps(path, label_name)
    twice = next((files for files in found.values() if len(files) > 1), None)
    if twice:
        raise KitsError(f"{key}={path}: '{twice[0].name}' and '{twice[1].name}' are both of one case; take one out")
    if found:
        return {name: files[0] for name, files in found.items()}
    objects = [file for file in files_below(path)[0] if is_dicom_seg(file)]
    below = [Scan("_".join([*file.relative_to(path).parts[:-1], stem(file)]), file) for file in objects]
    return {name: scan.path for name, scan in unique(below).items()}
