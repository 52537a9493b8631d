"""`python -m kits.report image=... prediction=... [truth=...] output=DIR`: pictures of every case, and a page that shows them.

`data=kits21` or `data=kits23` where the truth is a tree of that set."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.cli import command
from kits.errors import KitsError


@command("report")
def main(config: dict[str, Any]) -> None:
    """Draw `CASE_slices.png` and `CASE_surface.png` for every case with a prediction, and write `index.html`."""
    from kits.data.index import case_ids

    truth = None if config["truth"] is None else Path(config["truth"])
    data = config["data"]
    jobs = find_jobs(
        Path(config["image"]), Path(config["prediction"]), truth, case_ids(config["cases"]), label_name=data["label_name"]
    )
    page = report(jobs, Path(config["output"]), classes=data["classes"])
    print(f"pictures of {len(jobs)} case(s): {page}")


@dataclass(frozen=True)
class Job:
    """The files of one case; `prediction` is None where there is none, and `truth` where there is none."""

    name: str
    image: Path
    prediction: Path | None
    truth: Path | None


def find_jobs(image: Path, prediction: Path, truth: Path | None, cases: Sequence[str] | None, *, label_name: str) -> list[Job]:
    """The cases to draw: the one image, or every case of a KiTS tree (of those named).

    Args:
        label_name: file name of the label maps in a tree of truths, `data.label_name`.

    Raises:
        KitsError: something that is named does not exist, or no case has a prediction.
    """
    from kits.data.index import find_images

    for key, path in (("prediction", prediction), ("truth", truth)):
        if path is not None and not path.exists():
            raise KitsError(f"{key}={path}: no such file or folder; check the path")
    if not image.exists():
        raise KitsError(f"image={image}: no such file or folder; give a NIfTI file, a DICOM folder or a folder of cases")
    images = find_images(image, cases)
    if len(images) > 1 and prediction.is_file():
        raise KitsError(f"prediction={prediction}: one file for {len(images)} images; give the folder of predictions")

    def file_of(path: Path | None, inside: str) -> Path | None:
        found = path / inside if path is not None and path.is_dir() else path
        return found if found is not None and found.is_file() else None

    jobs = [
        Job(name, path, file_of(prediction, f"{name}.nii.gz"), file_of(truth, f"{name}/{label_name}"))
        for name, path in images.items()
    ]
    if all(job.prediction is None for job in jobs):
        raise KitsError(f"prediction={prediction}: no {jobs[0].name}.nii.gz in it; give the output of kits.predict")
    if truth is not None and all(job.truth is None for job in jobs):
        raise KitsError(f"truth={truth}: no label map of {jobs[0].name} in it; give a label map or a KiTS tree, or leave it out")
    return jobs


def report(jobs: Sequence[Job], output: Path, *, classes: Sequence[str]) -> Path:
    """Draw every case and write the page.

    Args:
        classes: of the truth's data set, `data.classes`; they decide what is scored.

    Returns:
        The path of `index.html`.

    Raises:
        KitsError: a file cannot be read, or a prediction has another size than its image.
    """
    from tqdm import tqdm

    from kits.io import write_text

    sections = [draw(job, output, classes) for job in tqdm(jobs, desc="report", unit="case")]
    page = output / "index.html"
    write_text(page, PAGE.format(body="\n".join(sections)))
    return page


def draw(job: Job, output: Path, classes: Sequence[str]) -> str:
    """Draw one case; its section of the page."""
    from kits.io import read_labels, read_volume
    from kits.labels import CLASSES, regions_of
    from kits.metrics import score_case
    from kits.pictures import Scene, save, slices_figure, surface_figure

    if job.prediction is None:
        return f"<h2>{html.escape(job.name)}: no prediction</h2>"
    volume = read_volume(job.image)
    allowed = {job.truth: range(len(classes)), job.prediction: range(len(CLASSES))}  # a prediction may know more than the truth
    labels = {path: read_labels(path, allowed=known).array for path, known in allowed.items() if path is not None}
    for path, array in labels.items():
        if array.shape != volume.array.shape:
            raise KitsError(
                f"{path}: {array.shape} voxels (z, y, x) but {job.image} has {volume.array.shape}; the two are not one case"
            )
    truth = labels[job.truth] if job.truth is not None else None
    scores = {} if truth is None else score_case(labels[job.prediction], truth, regions_of(classes))
    scene = Scene(job.name, volume.array, labels[job.prediction], truth, volume.spacing, scores)
    names = f"{job.name}_slices.png", f"{job.name}_surface.png"
    for name, figure in zip(names, (slices_figure(scene), surface_figure(scene)), strict=True):
        save(figure, output / name)
    headings = html.escape("; ".join(scene.headings))
    pictures = "\n".join(f'<img src="{html.escape(name, quote=True)}" alt="{html.escape(name, quote=True)}">' for name in names)
    return f"<h2>{headings}</h2>\n{pictures}"


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Kidneys and kidney tumors</title>
<style>
body {{ background: #101214; color: #e8e8e8; font-family: sans-serif; margin: 2em auto; max-width: 1500px; }}
h2 {{ font-size: 1.1em; font-weight: normal; margin-top: 2.5em; }}
img {{ display: block; max-width: 100%; margin-bottom: 0.5em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


if __name__ == "__main__":
    main()
