"""The bars of the clinical read-out: closed forms, cost, and agreement with others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kits.bench.known_bodies import BODIES, HEIGHTS, in_axis_order, most_moved, one_body, one_place, placed
from kits.bench.timing import in_fresh_process, peak_gb, seconds, upright
from kits.config.schema.benches import ReadoutBench
from kits.core.errors import KitsError
from kits.core.parallel import map_cases
from kits.data.index import RECORDS_NAME
from kits.io import read_labels, write_labels
from kits.readout import read_out
from kits.readout.cohort import measure_map
from kits.readout.maps import LabelMap, find_maps
from kits.volume import Triple


def measure(options: ReadoutBench) -> dict[str, float]:
    """Measure errors on bodies, the cost of a large case and, with `root`, agreement with the records."""
    measured = large_case(options.large)  # first, while memory is what the libraries take
    measured |= known_bodies(options)
    measured |= known_places(options)
    measured["wrong_axis_orders"] = axis_orders(options)
    measured |= most_moved()
    if options.root is not None:
        measured |= records(Path(options.root), options)
    return measured


def known_bodies(options: ReadoutBench) -> dict[str, float]:
    """Find the largest error of each quantity; print mean and largest of each body on each spacing."""
    groups = [(name, spacing) for spacing in options.spacings for name in BODIES]
    calls = [
        (name, spacing, options.radii_mm, (options.seed, group, pose))
        for group, (name, spacing) in enumerate(groups)
        for pose in range(options.poses)
    ]
    poses: list[Any] = map_cases(one_body, calls, workers=options.workers, desc="bodies")
    worst: dict[str, float] = {}
    for group, (name, spacing) in enumerate(groups):
        own = poses[group * options.poses : (group + 1) * options.poses]
        errors = {quantity: np.abs([pose[quantity] for pose in own]) for quantity in own[0]}
        told = ", ".join(f"{quantity} {found.mean():.3f} to {found.max():.3f}" for quantity, found in errors.items())
        print(f"{name} on {spacing}: errors, mean to largest: {told}", flush=True)
        worst = {quantity: max(worst.get(quantity, 0.0), float(found.max())) for quantity, found in errors.items()}
    return worst


def known_places(options: ReadoutBench) -> dict[str, float]:
    """Count wrong sides, faces and L of tumors at known places, and find the largest error of distances."""
    rng = np.random.default_rng(options.seed)
    places = list(product(options.spacings, (False, True), ("anterior", "posterior"), HEIGHTS))
    calls = [(*place, float(rng.uniform(-20, 20))) for place in places]
    found: list[Any] = map_cases(one_place, calls, workers=options.workers, desc="places")
    for one in found:
        if one["wrong"]:
            print("  " + one["wrong"])
    for spacing in options.spacings:
        own = [one for place, one in zip(places, found, strict=True) if place[0] == spacing]
        told = ", ".join(f"{name} {max(one['errors_mm'][name] for one in own):.2f}" for name in own[0]["errors_mm"])
        print(f"places on {spacing}: largest errors, mm: {told}")
    # In voxels: of their longest edge, for between slices nothing is seen.
    far = [max(one["errors_mm"].values()) / max(place[0]) for place, one in zip(places, found, strict=True)]
    return {"wrong_sides_faces_poles": float(sum(bool(one["wrong"]) for one in found)), "distance_voxels": max(far)}


def axis_orders(options: ReadoutBench) -> float:
    """Count the axis orders of all 48 in whose file any number is not that of the array itself."""
    labels, spacing = placed(True, (21.0, -18.0, 12.0), 14.0, (3.0, 2.0, 2.0), 10.0), (3.0, 2.0, 2.0)
    expected = read_out(labels, spacing).to_dict()
    orders = list(range(48))
    found = map_cases(in_axis_order, [(labels, spacing, order) for order in orders], workers=options.workers, desc="orders")
    return float(sum(one != expected for one in found))


def large_case(shape: Triple) -> dict[str, float]:
    """Measure seconds from a file to its numbers, and GB above the libraries, for a case of this size.

    Raises:
        KitsError: the case is smaller than the body in it.
    """
    spacing = (0.5, 0.8, 0.8)
    small = placed(True, (10.0, -18.0, 12.0), 20.0, spacing, 10.0)
    if any(n < m for n, m in zip(shape, small.shape, strict=True)):
        raise KitsError(f"large={list(shape)}: smaller than the body in it; give {list(small.shape)} voxels (z, y, x) or more")
    labels = np.zeros(shape, np.uint8)
    start = [(n - m) // 2 for n, m in zip(shape, small.shape, strict=True)]
    labels[tuple(slice(s, s + m) for s, m in zip(start, small.shape, strict=True))] = small
    with TemporaryDirectory() as folder:
        path = Path(folder) / "large.nii.gz"
        write_labels(path, labels, upright(shape, spacing))
        found: dict[str, float] = in_fresh_process(measure_large, str(path))
    print(f"{shape}: {found['large_seconds']:.2f} s, {found['large_gb']:.2f} GB above the libraries", flush=True)
    return found


def measure_large(path: str) -> dict[str, float]:
    """Read and measure one label map: seconds, and GB above what the libraries take."""
    read_out(placed(True, (0.0, -20.0, 10.0), 10.0, (3.0, 2.0, 2.0), 0.0), (3.0, 2.0, 2.0))  # loads them
    before = peak_gb()

    def work() -> None:
        volume = read_labels(path, allowed=range(4))
        read_out(volume.array, volume.spacing)

    return {"large_seconds": seconds(work), "large_gb": peak_gb() - before}


def recorded_sizes(root: Path) -> dict[str, float]:
    """Read `radiographic_size` by case, cm.

    Raises:
        KitsError: `root` has no kits.json.
    """
    file = root / RECORDS_NAME
    if not file.is_file():
        raise KitsError(f"root={root}: no {RECORDS_NAME} in it; give KiTS19's label maps with its records")
    return {case["case_id"]: case["radiographic_size"] for case in json.loads(file.read_text(encoding="utf-8"))}


def records(root: Path, options: ReadoutBench) -> dict[str, float]:
    """Compare the largest tumors' axial diameters with `radiographic_size` (cm), and time 210 maps.

    Raises:
        KitsError: `root` has no kits.json.
    """
    recorded = recorded_sizes(root)
    maps = find_maps(root, None, None, label_name=options.data.label_name)
    cases: list[Any] = []

    def read_all() -> None:
        with TemporaryDirectory() as folder:
            calls: list[tuple[LabelMap, Path]] = [(job, Path(folder)) for job in maps]
            cases.extend(map_cases(measure_map, calls, workers=options.workers, desc="readout"))

    taken = seconds(read_all)
    pairs, points = [], {}
    for case in cases:
        if case["tumors"]:
            largest = max(case["tumors"], key=lambda tumor: tumor["volume_ml"])
            pairs.append((recorded[case["case"]], largest["axial_mm"] / 10))
            points[case["case"]] = largest["renal"]["R"]["points"]
    true, found = np.array(pairs).T
    off = np.abs(found - true)
    r = float(np.corrcoef(true, found)[0, 1])
    told = f"mean error {off.mean():.2f} cm, median {np.median(off):.2f}, bias {(found - true).mean():+.2f}"
    print(f"{len(pairs)} maps: r {r:.3f}, {told}")
    same = {} if options.organisers is None else {"organisers_r": as_organisers(points, Path(options.organisers))}
    return {**same, "record_r": r, "record_mean_cm": float(off.mean()), "seconds_of_210": taken * 210 / len(maps)}


def as_organisers(points: Mapping[str, int], folder: Path) -> float:
    """Return the share of cases whose points for R are those of the organisers' code.

    Args:
        folder: what neheller/seg-to-nephrometry wrote for these label maps, `CASE.json`.

    Raises:
        KitsError: it lacks a case.
    """
    same = []
    for case, own in points.items():
        file = folder / f"{case}.json"
        if not file.is_file():
            raise KitsError(f"organisers={folder}: no {file.name} in it; run their get_nephrometry.py on every label map of root")
        same.append(json.loads(file.read_text(encoding="utf-8"))["renal"]["R"] == own)
    print(f"points for R as the organisers' code gives them: {sum(same)} of {len(same)}")
    return float(np.mean(same))
