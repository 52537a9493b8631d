"""The cases of a report: their files, and the page of all or the pictures of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kits.core.errors import KitsError
from kits.core.labels import CLASSES, CYST, KITS19_CLASSES, regions_of
from kits.core.parallel import map_cases
from kits.data.classes import judge_truths
from kits.data.index import ENDINGS, find_predictions, label_maps, match
from kits.data.scans import Scan, find_inputs
from kits.io import read_geometry, read_labels
from kits.metrics import score_case
from kits.metrics.mistaken import explain_misfit
from kits.reporting.page import Entry, entry_of, missing_entry, write_page
from kits.reporting.run_notes import RunNotes, read_notes
from kits.reporting.scene import Scene, save
from kits.reporting.slices import slices_figure
from kits.reporting.surfaces import surface_figure
from kits.volume import bring_to, compare


@dataclass(frozen=True)
class CaseFiles:
    """One case's scan and files; `prediction` or `truth` is None where there is none."""

    scan: Scan
    prediction: Path | None
    truth: Path | None
    folder: Path | None = None  # of the predictions, where the run's report would lie

    @property
    def name(self) -> str:
        """The scan's."""
        return self.scan.name


def find_files(
    image: Path, prediction: Path, truth: Path | None, cases: Sequence[str] | None, *, label_name: str
) -> list[CaseFiles]:
    """Find the cases to draw: those in `cases`, else every scan with a prediction or a failed one.

    Args:
        label_name: file name of the label maps in a tree of truths, `data.label_name`.

    Raises:
        KitsError: something that is named does not exist, or no case has a prediction.
    """
    for key, path in (("prediction", prediction), ("truth", truth)):
        if path is not None and not path.exists():
            raise KitsError(f"{key}={path}: no such file or folder; check the path")
    scans = find_inputs(image, cases, key="image").scans
    if len(scans) > 1 and prediction.is_file():
        raise KitsError(f"prediction={prediction}: one file for {len(scans)} images; give the folder of predictions")

    folder = prediction if prediction.is_dir() else prediction.parent
    found, true = (dict.fromkeys(scans, path) if path is None or path.is_file() else {} for path in (prediction, truth))
    if prediction.is_dir():
        found = dict(find_predictions(prediction, list(scans), label_name))
    if truth is not None and truth.is_dir():
        true = dict(match(list(scans), label_maps(truth, label_name)))
    files = [CaseFiles(scan, found.get(name), true.get(name), folder) for name, scan in scans.items()]
    if cases is None:  # images that nobody segmented would hide those that somebody did
        files = [one for one in files if one.prediction is not None or read_notes(folder, one.name).error is not None]
        if len(files) < len(scans):
            print(
                f"{len(scans) - len(files)} of {len(scans)} images have no prediction and are left out; cases=[...] names cases"
            )
    if truth is not None and all(one.truth is None for one in files):
        raise KitsError(f"truth={truth}: no label map of {files[0].name} in it; give a label map or a KiTS tree, or leave it out")
    return files


def write_report(cases: Sequence[CaseFiles], output: Path, *, ids: Mapping[int, int], workers: int) -> Path:
    """Write the page of all cases; one that cannot be read is named there and at the end.

    Args:
        ids: what each id of the truth's label maps means, `data.ids`; they decide what is scored.
        workers: processes.

    Returns:
        The path of `index.html`.

    Raises:
        KitsError: a case could not be read; the page, with the others, is written. Or the truths' labels are not what `ids` says.
    """
    _judge(cases, ids, workers)
    calls = [(case, dict(ids)) for case in cases]
    found = map_cases(page_entry, calls, workers=workers, desc="report", catch=(KitsError,))
    page = output / "index.html"
    entries = [
        missing_entry(case.name, RunNotes(), str(entry)) if isinstance(entry, Exception) else entry
        for case, entry in zip(cases, found, strict=True)
    ]
    write_page(page, entries)
    drawn = any(not isinstance(result, Exception) for result in found)
    _raise_first(found, f"; {'the page of the others' if drawn else 'what is known of them'} is {page}")
    return page


def write_pictures(cases: Sequence[CaseFiles], output: Path, *, ids: Mapping[int, int], workers: int) -> None:
    """Write `CASE_slices.png` and `CASE_surface.png` of every case with a prediction.

    Raises:
        KitsError: a case could not be read; the pictures of the others are written.
    """
    _judge(cases, ids, workers)
    drawn = [(case, dict(ids), output) for case in cases if case.prediction is not None]
    _raise_first(map_cases(draw, drawn, workers=workers, desc="report", catch=(KitsError,)), "")


def _judge(cases: Sequence[CaseFiles], ids: Mapping[int, int], workers: int) -> None:
    truths = {case.name: case.truth for case in cases if case.truth is not None and case.prediction is not None}
    if truths:  # one that cannot be read is named where it is drawn
        judge_truths(truths, ids, workers=workers, catch=(KitsError,))


def _raise_first(found: Sequence[object], rest: str) -> None:
    if failed := [result for result in found if isinstance(result, Exception)]:
        raise KitsError(f"{len(failed)} of {len(found)} cases could not be drawn, the first: {failed[0]}{rest}")


def page_entry(case: CaseFiles, ids: Mapping[int, int]) -> Entry:
    """Draw what the page holds of one case."""
    name = case.name if case.prediction is None else ENDINGS.sub("", case.prediction.name)
    notes = RunNotes() if case.folder is None else read_notes(case.folder, name)
    if case.prediction is None:
        return missing_entry(case.name, notes)
    scene, doubts = read_scene(case, ids)
    return entry_of(scene, replace(notes, warnings=[*notes.warnings, *doubts]))


def draw(case: CaseFiles, ids: Mapping[int, int], output: Path) -> None:
    """Write the pictures of one case."""
    scene, _ = read_scene(case, ids)
    save(slices_figure(scene), output / f"{case.name}_slices.png")
    save(surface_figure(scene), output / f"{case.name}_surface.png")


def read_scene(case: CaseFiles, ids: Mapping[int, int]) -> tuple[Scene, list[str]]:
    """Read the arrays of a case that has a prediction, and what is doubtful of them.

    Raises:
        KitsError: a file cannot be read, or a label map has another size than the image.
    """
    assert case.prediction is not None
    volume = case.scan.read()
    doubts = []

    def labels_beside(path: Path, known: Mapping[int, int]) -> np.ndarray:
        grid = read_geometry(path)
        if differs := compare(grid, volume.grid):
            if not differs.order and grid.shape_zyx != volume.array.shape:  # known before anything is decompressed
                raise KitsError(f"{path}: {differs} as {case.scan.path}; the two are not one case")
            doubts.append(f"{path.name}: {differs}: drawn voxel by voxel{' as stored' if differs.order else ''}")
        return bring_to(volume.grid, read_labels(path, known))

    prediction = labels_beside(
        case.prediction, {label: label for label in range(len(CLASSES))}
    )  # it may know more classes than the truth
    if case.truth is None:
        return Scene(case.name, volume.array, prediction, None, volume.spacing, {}), doubts
    truth = labels_beside(case.truth, ids)
    doubts += explain_misfit(prediction, truth, volume.spacing)
    return Scene(
        case.name,
        volume.array,
        prediction,
        truth,
        volume.spacing,
        score_case(prediction, truth, regions_of(CLASSES if CYST in ids.values() else KITS19_CLASSES)),
    ), doubts
