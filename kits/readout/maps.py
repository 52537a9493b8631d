"""The label maps at a path, each with its CT where one is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kits.errors import KitsError
from kits.readout.cohort import LabelMap


def find_maps(path: Path, image: Path | None, cases: Sequence[str] | None, *, label_name: str) -> list[LabelMap]:
    """Find a label map, those of a folder, or those of a KiTS tree.

    Args:
        image: their CT, as `kits.predict` takes it.
        cases: only these.
        label_name: file name of the label maps in a tree, `data.label_name`.

    Raises:
        KitsError: nothing there, no label map in it, or no CT of a map where `image` is given.
    """
    from kits.prediction.inputs import find_inputs, has_image_name, stem

    if not path.exists():
        raise KitsError(f"input={path}: no such file or folder; give a label map, a folder of them or a KiTS tree")
    if path.is_file():
        named = {stem(path): path}
    else:
        named = {file.parent.name: file for file in sorted(path.glob(f"*/{label_name}"))}
        named = named or {stem(file): file for file in sorted(path.iterdir()) if has_image_name(file) and file.is_file()}
    if not named:
        raise KitsError(f"input={path}: no label map in it; give a folder of .nii.gz files or of case_XXXXX/{label_name}")
    if cases is not None:
        missing = [case for case in cases if case not in named]
        if missing:
            raise KitsError(f"input={path}: no label map of {', '.join(missing)}; take these cases out")
        named = {case: named[case] for case in cases}
    if image is None:
        return [LabelMap(name, file) for name, file in named.items()]
    scans = find_inputs(image, key="image").scans
    if len(scans) == 1 and len(named) == 1:
        scans = {next(iter(named)): next(iter(scans.values()))}
    lacking = [name for name in named if name not in scans]
    if lacking:
        raise KitsError(
            f"image={image}: no CT of {lacking[0]} ({len(lacking)} of {len(named)} lack one); give those of all, or leave it out"
        )
    return [LabelMap(name, file, scans[name]) for name, file in named.items()]
