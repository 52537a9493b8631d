"""The networks that are to come with the package: painted, trained, and held against the gate.

Each real scan is left out of the training of one pair in turn, and one more pair trains on all of them. The steps can run on
two machines: `carry`, `paint` and `train` need the scans, `gate` and `export` the scans and what `train` left in `pairs/`.
"""

from __future__ import annotations

import csv
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kits.bench.timing import judge
from kits.config.conf_files import conf_dir
from kits.config.schema.benches import ShippedBench
from kits.core.errors import KitsError
from kits.core.plain_files import read_object
from kits.data.index import IMAGE_NAME, LABEL_NAME
from kits.io import read_labels, read_volume, write_json, write_labels, write_text, write_volume
from kits.volume.rois import Box, coverage
from kits.workflows.step import run_process

# The case of the scan itself beside those painted of it.
REAL = "case_90000"
FIGURES = "gate.json"
HU_CARRIED = (-1000, 700)


def measure(options: ShippedBench) -> dict[str, float]:
    """Take the steps that are asked for; the figures of the gate, where it has been tried."""
    for step in options.steps:
        {"carry": carry, "paint": paint, "train": train, "gate": gate, "export": export}[step](options)
    found = read_object(Path(options.output) / FIGURES, {"figures": {str: float}})
    return found["figures"] if found else {}


def scans_of(options: ShippedBench) -> list[Path]:
    """List the folders of the drawn scans by name."""
    found = sorted(path.parent for path in Path(options.images).glob(f"*/{LABEL_NAME}"))
    if len(found) < 2:
        raise KitsError(f"images={options.images}: needs NAME/{IMAGE_NAME} and NAME/{LABEL_NAME} of two scans or more")
    return found


def carry(options: ShippedBench) -> None:
    """Write the scans small enough to be carried: HU in steps of 4, nothing beyond what the networks see."""
    for folder in scans_of(options):
        volume, labels = read_volume(folder / IMAGE_NAME), read_labels(folder / LABEL_NAME, allowed=range(4))
        rounded = (np.rint(volume.array.clip(*HU_CARRIED) / 4) * 4).astype(np.int16)
        target = Path(options.output) / "scans" / folder.name
        write_volume(target / IMAGE_NAME, rounded, volume.grid)
        write_labels(target / LABEL_NAME, labels.array, labels.grid)


def paint(options: ShippedBench) -> None:
    """Paint the training cases into one tree, prepare it, and fold it by scan.

    Fold k validates on the variants of scan k; the last one on phantoms alone, so its training sees every scan.
    """
    output, names = Path(options.output), [path.name for path in scans_of(options)]
    tree = output / "data"
    records: list[dict[str, Any]] = []
    for part, kind in options.painting.items():
        drawn = output / "painted" / part
        run_process("phantom", [*shlex.split(kind), f"output={drawn}", f"images={options.images}", f"workers={options.workers}"])
        for record in json.loads((drawn / "kits.json").read_text(encoding="utf-8")):
            case = f"painted_{len(records):05d}"  # an id that no data set has: those trained on are refused in predictions
            target = tree / case
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to((drawn / record["case_id"]).resolve(), target_is_directory=True)
            records.append({**record, "case_id": case})
    write_json(tree / "kits.json", records)
    cache = output / "cache"
    given = [f"data.root={tree}", f"data.cache={cache}", f"data.workers={options.workers}", "split.renew=true"]
    run_process("prepare", [*given, *shlex.split(options.prepare)])

    scan_of = {record["case_id"]: record["painted"].get("scan") for record in records}
    parts = json.loads((cache / "splits.json").read_text(encoding="utf-8"))["parts"]
    cases = sorted(case for part in parts.values() for case in part)
    folds = [[case for case in cases if scan_of[case] == name] for name in names]
    folds.append([case for case in cases if scan_of[case] is None][:: options.every_phantom])
    rest = sorted(set(cases) - {case for fold in folds for case in fold})
    if not all(folds):
        raise KitsError(f"{tree}: a scan has no sound variant, or there are no phantoms; paint more")
    # A case that validates nowhere is in a fold that nobody leaves out.
    write_json(
        cache / "splits.json", {"settings": {}, "parts": {f"fold{k}": fold for k, fold in enumerate([*folds, rest]) if fold}}
    )


def train(options: ShippedBench) -> None:
    """Train both stages of all pairs at once, each by the clock; write every pair's weights."""
    output, pairs = Path(options.output), range(len(scans_of(options)) + 1)
    running = {}
    for number, stage in itertools.product(pairs, options.times):
        run = output / "pairs" / str(number) / stage
        run.mkdir(parents=True, exist_ok=True)
        given = [f"data.cache={output / 'cache'}", f"trainer.max_time={options.times[stage]}", *shlex.split(options.training)]
        call = [f"experiment=shipped/{stage}", *given, f"fold={number}", f"run_dir={run}", "overwrite=true"]
        print(f"$ python -m kits.train {shlex.join(call)}", flush=True)
        with (run / "log.txt").open("w", encoding="utf-8") as log:
            running[run] = subprocess.Popen([sys.executable, "-m", "kits.train", *call], stdout=log, stderr=subprocess.STDOUT)
    failed = [run / "log.txt" for run, process in running.items() if process.wait()]
    if failed:
        last = failed[0].read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise KitsError(f"{len(failed)} trainings failed; {failed[0]} ends with: {''.join(last)}")
    for number in pairs:
        pair = output / "pairs" / str(number)
        # The last and not the best: the best would be chosen on the scan that is left out.
        files = [f"{stage}={pair / stage / 'last.ckpt'}" for stage in options.times]
        run_process("export", [*files, "format=bundle", f"output={pair / 'bundle'}"])


def networks_of(output: Path, number: int) -> list[str]:
    """Name the networks of a pair as kits.predict takes them."""
    models = output / "pairs" / str(number) / "bundle" / "models"
    return [f"{stage}={models / stage}.safetensors" for stage in ("coarse", "fine")]


def gate(options: ShippedBench) -> None:
    """Segment each scan, and cases with lesions painted into it, by the pair that has not seen it."""
    output, rows = Path(options.output), {}
    for number, scan in enumerate(scans_of(options)):
        folder = output / "gate" / scan.name
        painted = [*shlex.split(options.held_out), f"images={options.images}", f"only=[{scan.name}]"]
        run_process("phantom", [*painted, f"output={folder / 'scans'}", f"workers={options.workers}"])
        real = folder / "scans" / REAL
        real.unlink(missing_ok=True)
        real.symlink_to(scan.resolve(), target_is_directory=True)
        given = [f"input={folder / 'scans'}", f"output={folder / 'predictions'}", "overwrite=true"]
        run_process("predict", [*networks_of(output, number), *given, *shlex.split(options.predict)])
        scored = [f"prediction={folder / 'predictions'}", f"truth={folder / 'scans'}", f"output={folder / 'scores'}"]
        run_process("evaluate", ["data=kits23", *scored])
        rows[scan.name] = read_scores(folder)
    figures = figures_of(rows, options.without_contrast, options.least_tumor_mm)
    write_json(output / FIGURES, {"figures": figures, "scans": rows})
    write_text(output / "gate.md", table(rows, figures))
    print((output / "gate.md").read_text(encoding="utf-8"))


def read_scores(folder: Path) -> dict[str, Any]:
    """Collect of a scan its kidney Dice, and of all its cases tumors, false tumors and coverage."""
    with (folder / "scores" / "cases.csv").open(encoding="utf-8", newline="") as stream:
        cases = {row["case"]: row for row in csv.DictReader(stream)}
    with (folder / "scores" / "tumors.csv").open(encoding="utf-8", newline="") as stream:
        tumors = list(csv.DictReader(stream))
    report = json.loads((folder / "predictions" / "report.json").read_text(encoding="utf-8"))["cases"]
    found: dict[str, Any] = {"kidney": float(cases[REAL]["kidney"]), "painted": [], "false_tumors": {}, "coverage": []}
    for name, row in cases.items():
        own = [one for one in tumors if one["case"] == name]
        found["false_tumors"][name] = sum(one["side"] == "prediction" and one["matched"] == "0" for one in own)
        largest = max((float(one["diameter_mm"]) for one in own if one["side"] == "truth"), default=0.0)
        if largest:
            found["painted"].append({"largest_mm": largest, "tumor": float(row["tumor"])})
        truth = read_labels(folder / "scans" / name / LABEL_NAME, allowed=range(4)).array
        found["coverage"].append(coverage([Box.from_list(box) for box in report[name]["boxes"]], truth > 0))
    return found


def figures_of(rows: Mapping[str, Any], without: list[str], least_mm: float) -> dict[str, float]:
    """Compute what the bars are of."""
    kidneys = {name: row["kidney"] for name, row in rows.items()}
    groups = {
        "kidney_contrast": [value for name, value in kidneys.items() if name not in without],
        "kidney_plain": [value for name, value in kidneys.items() if name in without],
        "tumor": [one["tumor"] for row in rows.values() for one in row["painted"] if one["largest_mm"] >= least_mm],
        "false_tumors": [count for row in rows.values() for count in row["false_tumors"].values()],
    }
    means = {name: float(np.mean(values)) for name, values in groups.items() if values}
    least = min(share for row in rows.values() for share in row["coverage"])
    return {**means, "kidney_least": min(kidneys.values()), "coverage": least}


def table(rows: Mapping[str, Any], figures: Mapping[str, float]) -> str:
    """Write the gate as Markdown, for the README of the recipe and the model card."""
    lines = [
        "| left out | kidney Dice | coverage of ROIs, least | painted tumors | false tumors: scan, painted |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        tumors = [one["tumor"] for one in row["painted"]]
        mean = f"{np.mean(tumors):.3f} ({len(tumors)})" if tumors else "none"
        false = dict(row["false_tumors"])
        own = false.pop(REAL)
        lines.append(f"| {name} | {row['kidney']:.3f} | {min(row['coverage']):.3f} | {mean} | {own}, {sum(false.values())} |")
    return "\n".join([*lines, "", *(f"- {name}: {value:.3f}" for name, value in figures.items())]) + "\n"


def export(options: ShippedBench) -> None:
    """Write the pair of all scans as it comes with the package, if the gate is passed."""
    output, scans = Path(options.output), scans_of(options)
    found = read_object(output / FIGURES, {"figures": {str: float}})
    if found is None:
        raise KitsError(f"{output / FIGURES}: cannot be read; take the step gate first")
    judge(found["figures"], options.bars)
    head = conf_dir() / "experiment" / "shipped" / "card.md" if options.card is None else Path(options.card)
    card = head.read_text(encoding="utf-8") + "\n## Measured\n\n" + (output / "gate.md").read_text(encoding="utf-8")
    write_text(output / "card.md", card)
    given = [*networks_of(output, len(scans)), "format=shipped", f"card={output / 'card.md'}", f"scan={scans[0] / IMAGE_NAME}"]
    run_process("export", [*given, f"output={output / 'shipped'}"])
    print(f"copy {output / 'shipped'} to kits/shipped to have it in the package")
