"""`python -m kits.report image=... prediction=... [truth=...] output=DIR`: one page that shows every case, or pictures of them.

The images are found as kits.predict finds its input, so what was segmented can be looked at, whatever its format.
`data=kits21` or `data=kits23` where the truth is a tree of that set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config import plain
from kits.config.command import command
from kits.core.errors import KitsError

if TYPE_CHECKING:
    from kits.config.schema.commands import Report
    from kits.data.classes import Labelled
    from kits.prediction.scans import Scan
    from kits.reporting import Entry, Scene

HTML, PNG = "html", "png"


@command("report")
def main(options: Report) -> None:
    """Write `index.html`, which shows every case and needs nothing else; with format=png the pictures of a paper instead."""
    config = plain(options)
    from kits.data.index import case_ids

    truth = None if config["truth"] is None else Path(config["truth"])
    data = config["data"]
    jobs = find_jobs(
        Path(config["image"]), Path(config["prediction"]), truth, case_ids(config["cases"]), label_name=data["label_name"]
    )
    output = Path(config["output"])
    if config["format"] == PNG:
        write_pictures(jobs, output, classes=data["classes"], workers=config["workers"])
        print(f"pictures of {len(jobs)} case(s): {output}")
    else:
        page = write_report(jobs, output, classes=data["classes"], workers=config["workers"])
        print(f"{len(jobs)} case(s), {page.stat().st_size / 1e6:.1f} MB: {page}")


@dataclass(frozen=True)
class Job:
    """One case's scan and files; `prediction` is None where there is none, and `truth` where there is none."""

    scan: Scan
    prediction: Path | None
    truth: Path | None
    told: Path | None = None  # where the run's report would lie: the prediction's folder

    @property
    def name(self) -> str:
        """The scan's."""
        return self.scan.name


def find_jobs(image: Path, prediction: Path, truth: Path | None, cases: Sequence[str] | None, *, label_name: str) -> list[Job]:
    """The cases to draw: those that `cases` names; otherwise every scan that has a prediction, or whose prediction failed.

    Args:
        label_name: file name of the label maps in a tree of truths, `data.label_name`.

    Raises:
        KitsError: something that is named does not exist, or no case has a prediction.
    """
    from kits.data.naming import find_predictions, label_maps, match
    from kits.prediction.scans import find_inputs
    from kits.reporting import run_of

    for key, path in (("prediction", prediction), ("truth", truth)):
        if path is not None and not path.exists():
            raise KitsError(f"{key}={path}: no such file or folder; check the path")
    scans = find_inputs(image, cases, key="image").scans
    if len(scans) > 1 and prediction.is_file():
        raise KitsError(f"prediction={prediction}: one file for {len(scans)} images; give the folder of predictions")

    told = prediction if prediction.is_dir() else prediction.parent
    found, true = (dict.fromkeys(scans, path) if path is None or path.is_file() else {} for path in (prediction, truth))
    if prediction.is_dir():
        found = dict(find_predictions(prediction, list(scans), label_name))
    if truth is not None and truth.is_dir():
        true = dict(match(list(scans), label_maps(truth, label_name)))
    jobs = [Job(scan, found.get(name), true.get(name), told) for name, scan in scans.items()]
    if cases is None:  # images that nobody segmented would hide those that somebody did
        jobs = [job for job in jobs if job.prediction is not None or run_of(told, job.name).error is not None]
        if len(jobs) < len(scans):
            print(f"{len(scans) - len(jobs)} of {len(scans)} images have no prediction and are left out; cases=[...] names cases")
    if truth is not None and all(job.truth is None for job in jobs):
        raise KitsError(f"truth={truth}: no label map of {jobs[0].name} in it; give a label map or a KiTS tree, or leave it out")
    return jobs


def write_report(jobs: Sequence[Job], output: Path, *, classes: Sequence[str], workers: int) -> Path:
    """Write the page of all cases; one that cannot be read is named on it and at the end, and the others go on.

    Args:
        classes: of the truth's data set, `data.classes`; they decide what is scored.
        workers: processes.

    Returns:
        The path of `index.html`.

    Raises:
        KitsError: a case could not be read; the page of the others is written. Or the truths' labels are not what `classes` says.
    """
    from kits.core.parallel import map_cases
    from kits.reporting import Run, missing_entry, write_page

    calls = [(job, tuple(classes)) for job in jobs]
    found = map_cases(page_entry, calls, workers=workers, desc="report", catch=(KitsError,))
    page = output / "index.html"
    entries: list[Entry] = []
    errors: list[str] = []
    for job, entry in zip(jobs, found, strict=True):
        if isinstance(entry, Exception):
            errors.append(str(entry))
            entries.append(missing_entry(job.name, Run(), str(entry)))
        else:
            entries.append(entry[0])
    refuse_other_labels([entry[1] for entry in found if not isinstance(entry, Exception)])
    write_page(page, entries)
    _refuse(errors, len(jobs), f"; the page of the others is {page}")
    return page


def write_pictures(jobs: Sequence[Job], output: Path, *, classes: Sequence[str], workers: int) -> None:
    """Write `CASE_slices.png` and `CASE_surface.png` of every case with a prediction.

    Raises:
        KitsError: a case could not be read; the pictures of the others are written.
    """
    from kits.core.parallel import map_cases

    drawn = [(job, tuple(classes), output) for job in jobs if job.prediction is not None]
    found = map_cases(draw, drawn, workers=workers, desc="report", catch=(KitsError,))
    _refuse([str(result) for result in found if isinstance(result, Exception)], len(drawn), "")
    refuse_other_labels([result for result in found if not isinstance(result, Exception)])


def refuse_other_labels(seen: Sequence[Labelled | None]) -> None:
    """Raise KitsError where the truths of all cases show that their labels are not kidney and tumor."""
    from kits.data.classes import judge_classes
    from kits.data.findings import errors

    if found := errors(judge_classes([one for one in seen if one is not None])):
        raise KitsError(f"truth: {found[0].finding}; {found[0].remedy}")


def page_entry(job: Job, classes: Sequence[str]) -> tuple[Entry, Labelled | None]:
    """What the page holds of one case, and what its truth says of the classes."""
    from kits.data.naming import ENDINGS
    from kits.reporting import Run, entry_of, missing_entry, run_of

    name = job.name if job.prediction is None else ENDINGS.sub("", job.prediction.name)
    run = Run() if job.told is None else run_of(job.told, name)
    if job.prediction is None:
        return missing_entry(job.name, run), None
    scene, doubts, labelled = read_scene(job, classes)
    return entry_of(scene, replace(run, warnings=[*run.warnings, *doubts])), labelled


def draw(job: Job, classes: Sequence[str], output: Path) -> Labelled | None:
    """Write the pictures of one case; what its truth says of the classes."""
    from kits.reporting import save, slices_figure, surface_figure

    scene, _, labelled = read_scene(job, classes)
    save(slices_figure(scene), output / f"{job.name}_slices.png")
    save(surface_figure(scene), output / f"{job.name}_surface.png")
    return labelled


def read_scene(job: Job, classes: Sequence[str]) -> tuple[Scene, list[str], Labelled | None]:
    """The arrays of a case that has a prediction, what is doubtful of them, and what the truth, if any, says of the classes.

    Raises:
        KitsError: a file cannot be read, or a label map has another size than the image.
    """
    from kits.core.labels import CLASSES, regions_of
    from kits.data.classes import look_at
    from kits.io import read_geometry, read_labels
    from kits.metrics import score_case
    from kits.metrics.mistaken import mistaken
    from kits.reporting import Scene
    from kits.volume import brought_to, compare

    assert job.prediction is not None
    volume = job.scan.read()
    allowed = {job.prediction: range(len(CLASSES)), job.truth: range(len(classes))}  # a prediction may know more than the truth
    labels: dict[Path, Any] = {}
    doubts = []
    for path, known in allowed.items():
        if path is None:
            continue
        grid = read_geometry(path)
        if differs := compare(grid, volume.grid):
            if not differs.order and grid.shape_zyx != volume.array.shape:  # known before anything is decompressed
                raise KitsError(f"{path}: {differs} as {job.scan.path}; the two are not one case")
            doubts.append(f"{path.name}: {differs}: drawn voxel by voxel{' as stored' if differs.order else ''}")
        labels[path] = brought_to(volume.grid, read_labels(path, allowed=known))
    prediction = labels[job.prediction]
    if job.truth is None:
        return Scene(job.name, volume.array, prediction, None, volume.spacing, {}), doubts, None
    truth = labels[job.truth]
    doubts += mistaken(prediction, truth, volume.spacing)
    scores = score_case(prediction, truth, regions_of(classes))
    labelled = look_at(job.name, job.truth, truth, volume.spacing)
    return Scene(job.name, volume.array, prediction, truth, volume.spacing, scores), doubts, labelled


def _refuse(errors: Sequence[str], count: int, rest: str) -> None:
    if errors:
        raise KitsError(f"{len(errors)} of {count} cases could not be drawn, the first: {errors[0]}{rest}")


if __name__ == "__main__":
    main()
