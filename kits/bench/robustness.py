"""The read-out on real label maps: against the hospital's records, and on changed maps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kits.bench.changed_maps import variants_of
from kits.bench.readout_bars import recorded_sizes
from kits.config.schema.benches import ReadoutStudy
from kits.core.parallel import map_cases
from kits.core.plain_files import csv_text
from kits.io import make_folder, whole_file, write_json, write_text
from kits.readout import CaseReading, read_out
from kits.readout.maps import LabelMap, find_maps
from kits.volume import bounding_slices

# What moves: by the reading's own name, and whether in percent of its value or in its own unit.
PERCENT = (
    "volume_ml",
    "integrated_ml",
    "axial_mm",
    "short_mm",
    "diameter_3d_mm",
    "contact_mm2",
    "c_index",
    "parenchyma_ml",
    "length_mm",
)
OWN_UNIT = ("exophytic_share", "sinus_mm", "depth_mm", "points_r", "points_e", "points_n", "points_l")
# Around the kidneys, so that no change makes them touch the border of the image.
MARGIN = 8


def measure(options: ReadoutStudy) -> dict[str, float]:
    """Write tables and a plot, and print what they say; nothing has a bar."""
    root, output = Path(options.root), Path(options.output)
    make_folder(output, "output")
    sizes = recorded_sizes(root)
    maps = find_maps(root, None, None, label_name=options.data.label_name)
    calls = [(job, number % options.every == 0) for number, job in enumerate(maps)]
    results: list[Any] = map_cases(readings_of, calls, workers=options.workers, desc="study")
    found = {job.name: result for job, result in zip(maps, results, strict=True) if result["as it is"]}
    pairs = [(name, sizes[name], result["as it is"]["axial_mm"] / 10) for name, result in found.items()]
    write_text(output / "agreement.csv", csv_text(["case", "recorded_cm", "axial_cm"], pairs))
    summary = {"agreement": agreement(pairs), "scores": scores(found.values()), "changes": changes(found)}
    rows = [[name, change, key, *pair] for name, change, key, pair in moved(found)]
    write_text(output / "changes.csv", csv_text(["case", "change", "number", "before", "after"], rows))
    write_json(output / "summary.json", summary)
    draw(pairs, output / "agreement.png")
    print(json.dumps(summary, indent=1))
    return {}


def readings_of(job: LabelMap, changed: bool) -> dict[str, dict[str, Any]]:
    """Read the numbers of a case's largest tumor and its kidney, as it is and, if asked for, changed."""
    labels, _ = job.read()
    window = bounding_slices(labels.array)
    if window is None:
        return {"as it is": {}}
    array = np.pad(labels.array[window], MARGIN)
    variants = {"as it is": (array, labels.spacing), **(dict(variants_of(array, labels.spacing)) if changed else {})}
    return {name: numbers_of(read_out(*variant)) for name, variant in variants.items()}


def numbers_of(reading: CaseReading) -> dict[str, Any]:
    """Measure the largest tumor and its kidney, and whether it is flagged as cut.

    Empty where there is no tumor.
    """
    if not reading.tumors:
        return {}
    tumor = max(reading.tumors, key=lambda one: one.volume_ml)
    (kidney,) = (one for one in reading.kidneys if one.side == tumor.side)
    points = {f"points_{letter.lower()}": getattr(tumor.renal, letter).points for letter in "RENL"}
    own = {name: getattr(tumor, name) for name in (*PERCENT[:7], *OWN_UNIT[:3])}
    cut = any(flag.startswith("cut") for flag in kidney.flags)
    told = {"total": tumor.renal.total, "face": tumor.face, "cut": cut}
    return {**own, "parenchyma_ml": kidney.parenchyma_ml, "length_mm": kidney.length_mm, **points, **told}


def moved(found: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, tuple[float, float]]]:
    """List case, change, number, and its value before and after."""
    for name, variants in found.items():
        for change, after in variants.items():
            for key in (*PERCENT, *OWN_UNIT) if change != "as it is" else ():
                before = variants["as it is"].get(key)
                if before is not None and after.get(key) is not None:
                    yield name, change, key, (before, after[key])


def changes(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up by change and number: median move, its 90th percentile, the share of points that stay."""
    values: dict[str, dict[str, list[float]]] = {}
    for _, change, key, (before, after) in moved(found):
        step = after - before if key in OWN_UNIT else 100 * (after - before) / max(abs(before), 1e-9)
        values.setdefault(change, {}).setdefault(key, []).append(step)
    told: dict[str, Any] = {}
    for change, numbers in values.items():
        told[change] = {"cases": max(map(len, numbers.values()))}
        for key, steps in numbers.items():
            if key.startswith("points"):
                told[change][key] = {"unchanged": round(float(np.mean(np.array(steps) == 0)), 2)}
            else:
                unit = {"exophytic_share": "", "sinus_mm": "mm", "depth_mm": "mm"}.get(key, "%")
                far = float(np.percentile(np.abs(steps), 90))
                told[change][key] = {"median": round(float(np.median(steps)), 3), "p90": round(far, 3), "unit": unit}
        told[change]["flagged as cut"] = sum(bool(one[change].get("cut")) for one in found.values() if change in one)
    return told


def scores(found: Any) -> dict[str, dict[str, int]]:
    """Count the cases by points, and by their sum."""
    names = {"R": "points_r", "E": "points_e", "N": "points_n", "L": "points_l", "A": "face", "total": "total"}
    counted = {name: Counter(str(one["as it is"][key]) for one in found) for name, key in names.items()}
    return {name: dict(sorted(counts.items())) for name, counts in counted.items()}


def agreement(pairs: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Measure r, errors, bias and limits of agreement (Bland, Altman 1986) in cm.

    Of all cases, and without the one that is farthest off.
    """
    farthest = max(pairs, key=lambda pair: abs(pair[2] - pair[1]))[0]
    told: dict[str, Any] = {}
    for name, kept in (("all", pairs), (f"without {farthest}", [pair for pair in pairs if pair[0] != farthest])):
        recorded, measured = np.array([pair[1:] for pair in kept]).T
        off = measured - recorded
        told[name] = {
            "cases": len(kept),
            "r": float(np.corrcoef(recorded, measured)[0, 1]),
            "mean_error": float(np.abs(off).mean()),
            "median_error": float(np.median(np.abs(off))),
            "bias": float(off.mean()),
            "limits": [float(off.mean() + sign * 1.96 * off.std(ddof=1)) for sign in (-1, 1)],
        }
    return told


def draw(pairs: Sequence[tuple[str, float, float]], path: Path) -> None:
    """Draw measured against recorded size, and their difference against their mean."""
    from matplotlib.figure import Figure

    recorded, measured = np.array([pair[1:] for pair in pairs]).T
    off, mean = measured - recorded, (measured + recorded) / 2
    figure = Figure(figsize=(9, 4), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    most = float(max(recorded.max(), measured.max())) * 1.05
    left.plot([0, most], [0, most], color="0.6", linewidth=1)
    left.scatter(recorded, measured, s=14)
    left.set(xlabel="recorded, cm", ylabel="longest axial diameter, cm", xlim=(0, most), ylim=(0, most), aspect="equal")
    right.scatter(mean, off, s=14)
    for value, style in ((off.mean(), "-"), *((off.mean() + sign * 1.96 * off.std(ddof=1), "--") for sign in (-1, 1))):
        right.axhline(value, color="0.4", linestyle=style, linewidth=1)
        right.annotate(f"{value:+.2f}", (most, value), ha="right", va="bottom", fontsize=8)
    right.set(xlabel="mean of both, cm", ylabel="measured less recorded, cm", xlim=(0, most))
    worst = int(np.argmax(np.abs(off)))
    right.annotate(pairs[worst][0], (mean[worst], off[worst]), textcoords="offset points", xytext=(6, -3), fontsize=8)
    with whole_file(path, ".png") as temporary:
        figure.savefig(temporary)
