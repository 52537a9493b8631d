"""Pairs of image and label map that are one case, in the layouts that data sets come in.

Every function takes the folder of a data set and gives its cases by id; what it holds beside them is named. Nothing is read but
the small JSON files that tell where the rest is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config.schema.base import text
from kits.core.errors import KitsError
from kits.core.plain_files import read_json
from kits.data.dataset_json import channel_of_ct, ids_by_name
from kits.data.index import IMAGE_NAME, Case, check_excluded, odd_id
from kits.io.tree import Skipped

if TYPE_CHECKING:
    from kits.config.schema.dataset import Data

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
# What other data sets call our classes; what a name here means follows in `kits.core.labels.classes_by_id`.
NAMES = {name: name for name in ("kidney", "tumor", "cyst", "masses")}
NAMES |= {"kidneys": "kidney", "tumour": "tumor", "mass": "masses"}


@dataclass
class DataSet:
    """The cases of a data set by id, what was left out and why, and its label ids by name."""

    cases: dict[str, Case] = field(default_factory=dict)
    left_out: list[Skipped] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)
    by_small_letters: dict[str, Case] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """Add a case.

        Raises:
            KitsError: another one has its id, as far as a file system tells capitals from small letters.
        """
        other = self.by_small_letters.setdefault(case.id.casefold(), case)
        if other is not case:
            raise KitsError(f"{case.image}: its case would be called {case.id!r}, as that of {other.image} is; rename one")
        self.cases[case.id] = case


def nnunet(root: Path) -> DataSet:
    """Find the cases of a raw nnU-Net data set: imagesTr/ID_0000.nii.gz, labelsTr/ID.nii.gz."""
    path = root / "dataset.json"
    about = read_json(path, {"labels": {str: object}}, "nnU-Net's description of a data set", "give its folder")
    found, ct = DataSet(named=ids_by_name(path, about)), channel_of_ct(path, about)
    ending = str(about.get("file_ending", ".nii.gz"))
    for image in listed(root / "imagesTr", found):
        name = image.name.removesuffix(ending)
        channel = re.search(r"_(\d{4})$", name)
        if name == image.name or channel is None:
            found.left_out.append(Skipped(image, f"no name of nnU-Net's, which end in _0000{ending}"))
        elif int(channel[1]) != ct:
            found.left_out.append(Skipped(image, f"another channel than the CT's, {ct:04d}"))
        else:
            pair(found, name[: channel.start()], image, root / "labelsTr" / f"{name[: channel.start()]}{ending}")
    return complete(found, root, root / "labelsTr")


def msd(root: Path) -> DataSet:
    """Find the cases of a task of the Medical Segmentation Decathlon, which dataset.json lists."""
    form = {"labels": {str: object}, "training": [{"image": str, "label": str}]}
    about = read_json(root / "dataset.json", form, "the Decathlon's description of a task", "give its folder")
    found = DataSet(named=ids_by_name(root / "dataset.json", about))
    for entry in about["training"]:
        image, label = (root / entry[part] for part in ("image", "label"))
        for path in (image, label):
            if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):  # links of its own may lead out
                raise KitsError(f"{root / 'dataset.json'}: names {path}, which lies outside of its folder")
        pair(found, without_ending(image), image, label)
    return complete(found, root, root / "labelsTr")


def bids(root: Path) -> DataSet:
    """Find the cases of a BIDS tree: sub-ID/**/sub-ID*_ct.nii.gz and derivatives/**/sub-ID*_dseg.nii.gz."""
    found = DataSet()
    maps: dict[str, list[Path]] = {}
    for label in sorted(root.glob("derivatives/**/sub-*_dseg.nii.gz")):
        maps.setdefault(entities(label), []).append(label)
    found.left_out += [Skipped(one, "a mask, no _dseg") for one in sorted(root.glob("derivatives/**/sub-*_mask.nii.gz"))]
    for image in sorted(root.glob("sub-*/**/sub-*_ct.nii.gz")):
        name = entities(image)
        pair(found, name, image, *maps.get(name, [root / f"{name}_dseg.nii.gz"]), patient=name.partition("_")[0])
    return complete(found, root, *(path for paths in maps.values() for path in paths))


def pairs(root: Path, images: str | None, label_maps: str | None) -> DataSet:
    """Find cases by two patterns below `root`; what `*` stands for is the id.

    Raises:
        KitsError: a pattern is not given or leaves the folder, or they have different numbers of `*`.
    """
    patterns = {"data.images": images, "data.label_maps": label_maps}
    for key, pattern in patterns.items():
        if not pattern or "*" not in pattern:
            raise KitsError(f"{key}={pattern or 'null'}: give a pattern with a * for the id, as {key}='masks/*_seg.nii.gz'")
        if pattern.startswith("/") or ".." in pattern or "**" in pattern:
            raise KitsError(f"{key}={pattern}: give a pattern below the data set's folder, with one * for a name")
    stars = [str(pattern).count("*") for pattern in patterns.values()]
    if stars[0] != stars[1]:
        raise KitsError(f"data.label_maps={label_maps}: has {stars[1]} * and data.images={images} has {stars[0]}; give as many")
    found = DataSet()
    maps: dict[str, list[Path]] = {}
    for path, name in matched(root, str(label_maps)):
        maps.setdefault(name, []).append(path)
    known = {path for paths in maps.values() for path in paths}
    for image, name in matched(root, str(images)):
        if image not in known:  # a wide pattern of images takes the label maps in
            pair(found, name, image, *maps.get(name, [root / str(label_maps).replace("*", name, 1)]))
    return complete(found, root, *sorted(known))


def matched(root: Path, pattern: str) -> Iterable[tuple[Path, str]]:
    """Give each file that a pattern fits, and what its stars stand for, joined by `_`."""
    form = re.compile("([^/]*)".join(map(re.escape, pattern.split("*"))))
    for path in sorted(root.glob(pattern)):
        fitting = form.fullmatch(path.relative_to(root).as_posix())
        if fitting and path.is_file():
            yield path, "_".join(fitting.groups())


def pair(found: DataSet, name: str, image: Path, label: Path, *others: Path, patient: str | None = None) -> None:
    """Add a case of two files, or name the one that lacks the other; `others` are label maps of it too."""
    if not image.is_file():
        found.left_out.append(Skipped(image, "the data set names it, and it is not there"))
    elif not label.is_file():
        found.left_out.append(Skipped(image, f"has no label map ({label.name})"))
    else:
        found.add(Case(name, image, label, patient, others))


def complete(found: DataSet, root: Path, *maps: Path) -> DataSet:
    """Name the label maps without an image and the folder of images without labels.

    Raises:
        KitsError: there is no case.
    """
    used = {label for case in found.cases.values() for label in (case.label, *case.others)}
    for path in maps:
        for label in sorted(path.iterdir()) if path.is_dir() else [path]:
            if label.is_file() and label not in used and label.name.endswith(ENDINGS) and not label.name.startswith("."):
                found.left_out.append(Skipped(label, "a label map without an image"))
    if (root / "imagesTs").is_dir():
        found.left_out.append(Skipped(root / "imagesTs", "scans without label maps; kits.predict takes them"))
    if not found.cases:
        reasons = "".join(f"; {one}" for one in found.left_out[:2])
        raise KitsError(f"{root}: no image with a label map in this layout{reasons}")
    return found


def listed(folder: Path, found: DataSet) -> list[Path]:
    """List the files of a folder that are not hidden; whatever else lies there is left out.

    Raises:
        KitsError: no such folder.
    """
    if not folder.is_dir():
        raise KitsError(f"{folder.parent}: has no folder {folder.name}; give the folder that holds it")
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    found.left_out += [Skipped(entry, "no file") for entry in entries if not entry.is_file()]
    return [entry for entry in entries if entry.is_file()]


def entities(path: Path) -> str:
    """Join what BIDS says of a file's scan: its name without suffix and derivatives' parts."""
    parts = without_ending(path).split("_")[:-1]
    return "_".join(part for part in parts if not part.startswith(("desc-", "space-", "label-", "seg-", "atlas-")))


def without_ending(path: Path) -> str:
    """Cut the ending of its format off a file's name."""
    return next((path.name.removesuffix(ending) for ending in ENDINGS if path.name.endswith(ending)), path.stem)


def label_ids(data: Data, found: DataSet) -> dict[str, list[int]] | None:
    """Tell the ids of our classes, by the configuration, else by the data set, else None.

    Raises:
        KitsError: the data set has a name that is none of ours, or says that an id of the configuration is none of its own.
    """
    if data.labels is not None:
        known = {number for ids in found.named.values() for number in (ids if isinstance(ids, list) else [ids])}
        given = {number for ids in data.labels.ids.values() for number in ids}
        if found.named and (unknown := given - known):
            has = ", ".join(f"{name}={text(ids)}" for name, ids in found.named.items())
            raise KitsError(f"data.labels: {min(unknown)} is no id of this data set; its dataset.json has {has}")
        return data.labels.ids
    labels: dict[str, list[int]] = {}
    for name, ids in found.named.items():
        if name.casefold() == "background":
            continue
        numbers = ids if isinstance(ids, list) else [ids]
        if name.casefold() not in NAMES or not all(isinstance(number, int) and 0 < number < 256 for number in numbers):
            give = "say which ids are what, as with 'data.labels={kidney:[1,2],tumor:3}'"
            raise KitsError(f"dataset.json: its label {name}={text(ids)} is none that is known; {give}")
        labels.setdefault(NAMES[name.casefold()], []).extend(numbers)
    return labels or None


def find_data_set(data: Data, root: Path) -> DataSet:
    """Find the cases of the data set in `root` that the group `data` describes, by id.

    Raises:
        KitsError: no case in it, an id that is none, or one in `data.exclude` that names no case.
    """
    if (layout := data.layout) == "dicom":
        raise KitsError("data=dicom: is read by kits.convert alone; give the tree that it makes with data.root=TREE")
    if layout == "kits":
        found = kits_tree(root, data.label_name, data.unlabeled_from)
    elif layout == "pairs":
        found = pairs(root, data.images, data.label_maps)
    else:
        found = LAYOUTS[layout](root)
    for name, case in found.cases.items():
        if wrong := odd_id(name):
            raise KitsError(f"{case.image}: its case would be called {name!r:.60}, {wrong}; rename it")
    check_excluded(data.exclude, found.cases)
    for name in data.exclude:
        found.cases.pop(name, None)
    if not found.cases:
        raise KitsError(f"{root}: every case in it is excluded (data.exclude)")
    found.cases = dict(sorted(found.cases.items()))
    return found


def kits_tree(root: Path, label_name: str, unlabeled_from: int | None) -> DataSet:
    """Find the cases of a KiTS tree, folders with an image or a label map, but no unlabeled test case.

    Args:
        label_name: file name of the label maps, `data.label_name`.
        unlabeled_from: the number from which on cases have no labels, `data.unlabeled_from`; None where all have some.
    """
    found = DataSet()
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        case = Case(folder.name, folder / IMAGE_NAME, folder / label_name)
        number = folder.name.removeprefix("case_")
        unlabeled = unlabeled_from is not None and number.isdecimal() and int(number) >= unlabeled_from
        if unlabeled and not case.label.is_file():
            continue
        if folder.name.startswith("case_") or case.image.is_file() or case.label.is_file():
            found.add(case)
        else:
            found.left_out.append(Skipped(folder, f"neither {IMAGE_NAME} nor {label_name} in it"))
    if not found.cases:
        raise KitsError(f"{root}: no case in it; the layout is case_XXXXX/{IMAGE_NAME} and {label_name}")
    return found


LAYOUTS: dict[str, Callable[[Path], DataSet]] = {"nnunet": nnunet, "msd": msd, "bids": bids}
