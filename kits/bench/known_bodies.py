"""The clinical read-out against closed forms (a ball in a posed body) and the hospital's records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import ndimage

from kits.bench.timing import in_fresh_process, peak_gb, seconds, upright
from kits.config.schema.benches import ReadoutBench
from kits.core.errors import KitsError
from kits.core.parallel import map_cases
from kits.data.index import RECORDS_NAME
from kits.io import read_labels, write_labels
from kits.readout import CaseReading, read_out
from kits.readout.cohort import measure_map
from kits.readout.maps import LabelMap, find_maps
from kits.volume import Spacing, Triple

# Half axes in mm (z, y, x) of a kidney, and how far its center lies from the patient's middle.
ELLIPSOID, BOX, FROM_MIDDLE = (52.0, 26.0, 29.0), (48.0, 23.0, 26.0), 65.0
# The notch that stands for the sinus: half its height and width, and where it ends, mm.
NOTCH = (16.0, 8.0, -10.0)
# Heights in mm of a ball of 8 mm, and its points for L. Not close to the notch's end, where slices of 5 mm cannot tell how much
# of it lies beyond: one map would be that of a notch of 16 mm and of one of 17.5 mm, and so 2 and 3 points.
HEIGHTS = {42.0: 1, 21.0: 2, 3.0: 3}
Inside = Callable[[np.ndarray], np.ndarray]


def measure(options: ReadoutBench) -> dict[str, float]:
    """Measure errors on bodies, the cost of a large case and, with `root`, agreement with the records."""
    rng = np.random.default_rng(options.seed)
    measured = large_case(options.large)  # first, while memory is what the libraries take
    measured |= known_bodies(options, rng)
    measured["wrong_sides_faces_poles"] = wrong_places(options, rng)
    measured["rotated_percent"] = most_turned()
    if options.root is not None:
        measured |= records(Path(options.root), options)
    return measured


def known_bodies(options: ReadoutBench, rng: np.random.Generator) -> dict[str, float]:
    """Find the largest error of each quantity; print mean and largest of each body on each spacing."""
    worst: dict[str, float] = {}
    for spacing in options.spacings:
        for name, half, inside in (("ellipsoid", ELLIPSOID, in_ellipsoid), ("box", BOX, in_box)):
            poses = [one_body(half, inside, spacing, options.radii_mm, rng) for _ in range(options.poses)]
            errors = {quantity: np.abs([pose[quantity] for pose in poses]) for quantity in poses[0]}
            told = ", ".join(f"{quantity} {found.mean():.3f} to {found.max():.3f}" for quantity, found in errors.items())
            print(f"{name} on {spacing}: errors, mean to largest: {told}", flush=True)
            worst = {quantity: max(worst.get(quantity, 0.0), float(found.max())) for quantity, found in errors.items()}
    return worst


def one_body(
    half: Spacing, inside: Inside, spacing: Spacing, radii: tuple[float, float], rng: np.random.Generator
) -> dict[str, float]:
    """Measure the errors of one ball at a random place on or in a body in a random pose."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    radius = rng.uniform(*radii)
    toward = rng.normal(size=3)
    surface = toward / (np.linalg.norm(toward / half) if inside is in_ellipsoid else np.abs(toward / half).max())
    center = surface * (1 - rng.uniform(-0.2, 0.8) * radius / np.linalg.norm(surface))
    axes = [np.arange(-95, 95 + step, step) + rng.uniform(-0.5, 0.5) * step for step in spacing]
    body = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ rotation
    labels = inside(body / half).astype(np.uint8)
    labels[((body - center) ** 2).sum(axis=-1) <= radius**2] = 2
    (tumor,) = read_out(labels, spacing).tumors
    directions = rng.normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    ball = directions * radius * rng.uniform(size=(len(directions), 1)) ** (1 / 3)
    touching = 4 * np.pi * radius**2 * inside((center + directions * radius) / half).mean()
    off = np.abs(axes[0] - (rotation @ center)[0]).min()  # of the slice that is nearest to the ball's center
    assert tumor.exophytic_share is not None
    assert tumor.contact_mm2 is not None
    return {
        "volume_percent": 100 * (tumor.volume_ml * 1000 / (4 / 3 * np.pi * radius**3) - 1),
        "diameter_pixels": (tumor.axial_mm - 2 * (radius**2 - off**2) ** 0.5) / spacing[1],
        "contact_percent": 100 * (tumor.contact_mm2 / touching - 1),
        "exophytic": tumor.exophytic_share - (1 - inside((center + ball) / half).mean()),
    }


def wrong_places(options: ReadoutBench, rng: np.random.Generator) -> float:
    """Count wrong sides, faces and polar positions of tumors at known places."""
    wrong = 0
    for spacing in options.spacings:
        for left in (False, True):
            for ahead, face in ((-24.0, "anterior"), (24.0, "posterior")):
                for height, points in HEIGHTS.items():
                    reading = read_out(placed(left, (height, ahead, 8.0), 8.0, spacing, rng.uniform(-20, 20)), spacing)
                    (tumor,) = reading.tumors
                    found = (tumor.side, tumor.face, tumor.renal.L.points)
                    if found != ("left" if left else "right", face, points):
                        print(f"  {spacing}: found {found}, placed {'left' if left else 'right'}, {face}, {points}")
                        wrong += 1
    return float(wrong)


def placed(left: bool, offset: Spacing, radius: float, spacing: Spacing, degrees: float) -> np.ndarray:
    """Draw notched kidneys turned about the long axis, one with a ball at `offset` (z, y, outward) mm."""
    axes = [np.arange(-h, h + step, step) for h, step in zip((75, 60, 125), spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    labels = np.zeros(z.shape, np.uint8)
    for side in (-1, 1):
        angle = np.deg2rad(degrees) * side
        out = side * (x - FROM_MIDDLE * side)
        u, v = np.cos(angle) * out - np.sin(angle) * y, np.sin(angle) * out + np.cos(angle) * y
        hollow = (np.abs(z) < NOTCH[0]) & (np.abs(v) < NOTCH[1]) & (u < NOTCH[2])
        labels[(in_ellipsoid(np.stack([z, v, u], axis=-1) / ELLIPSOID)) & ~hollow] = 1
        if (side == 1) == left:
            labels[(z - offset[0]) ** 2 + (v - offset[1]) ** 2 + (u - offset[2]) ** 2 <= radius**2] = 2
    return labels


def most_turned() -> float:
    """Measure the largest change of a number, in percent, where a map turns 30 degrees in its plane."""
    spacing = (1.0, 0.8, 0.8)
    labels = placed(True, (10.0, -18.0, 12.0), 14.0, spacing, 10.0)
    other = turned(labels, spacing, 30.0)
    before, after = (dict(numbers(read_out(array, spacing))) for array in (labels, other))
    # A share is a percentage itself; all else is taken relative to its value.
    scale = {name: 1.0 if name.endswith("_share") else max(abs(value), 1e-9) for name, value in before.items()}
    changes = {name: 100 * abs(after[name] - value) / scale[name] for name, value in before.items()}
    name = max(changes, key=lambda key: changes[key])
    print(f"turned by 30 degrees: {name} changes most, {before[name]:.3f} to {after[name]:.3f}")
    return changes[name]


def turned(labels: np.ndarray, spacing: Spacing, degrees: float) -> np.ndarray:
    """Turn a label map (z, y, x) in its plane, by the nearest voxel; rows and columns grow to hold it."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    _, dy, dx = spacing
    matrix = np.array([[1, 0, 0], [0, cosine, -sine * dx / dy], [0, sine * dy / dx, cosine]])
    size = np.array(labels.shape)
    grown = np.ceil(np.abs(np.linalg.inv(matrix)) @ size).astype(int)
    middle = (size - 1) / 2 - matrix @ ((grown - 1) / 2)
    return np.asarray(ndimage.affine_transform(labels, matrix, middle, tuple(grown), order=0))


def numbers(reading: CaseReading) -> list[tuple[str, float]]:
    """Collect the continuous values of a case with one tumor."""
    tumor, left = reading.tumors[0], reading.kidneys[1]
    names = ("volume_ml", "axial_mm", "short_mm", "diameter_3d_mm", "sphericity", "exophytic_share", "contact_mm2", "c_index")
    found = [(name, getattr(tumor, name)) for name in (*names, "depth_mm", "parenchyma_5mm_ml", "parenchyma_10mm_ml")]
    return [*found, ("parenchyma_ml", left.parenchyma_ml), ("length_mm", left.length_mm)]


def large_case(shape: Triple) -> dict[str, float]:
    """Measure seconds from a file to its numbers, and GB above the libraries, for a case of this size."""
    spacing = (0.5, 0.8, 0.8)
    small = placed(True, (10.0, -18.0, 12.0), 20.0, spacing, 10.0)
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
    pairs = []
    for case in cases:
        if case["tumors"]:
            largest = max(case["tumors"], key=lambda tumor: tumor["volume_ml"])
            pairs.append((recorded[case["case"]], largest["axial_mm"] / 10))
    true, found = np.array(pairs).T
    off = np.abs(found - true)
    r = float(np.corrcoef(true, found)[0, 1])
    told = f"mean error {off.mean():.2f} cm, median {np.median(off):.2f}, bias {(found - true).mean():+.2f}"
    print(f"{len(pairs)} maps: r {r:.3f}, {told}")
    return {"record_r": r, "record_mean_cm": float(off.mean()), "seconds_of_210": taken * 210 / len(maps)}


def in_ellipsoid(points: np.ndarray) -> np.ndarray:
    """Tell which points (..., 3), over the half axes, lie in the unit ball."""
    return np.asarray((points**2).sum(axis=-1) <= 1)


def in_box(points: np.ndarray) -> np.ndarray:
    """Tell which points (..., 3), over the half axes, lie in the cube of edge 2."""
    return np.asarray(np.abs(points).max(axis=-1) <= 1)
