"""From files to patches: reading a scan, preparing a tree, and random patches of the cache."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk

from kits.bench.timing import in_fresh_process, in_turn, peak_gb, scratch_folder, seconds, upright
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.core.labels import BACKGROUND
from kits.core.parallel import map_cases
from kits.data import arrays
from kits.data.cached_case import CachedCase, CaseRecord
from kits.data.layouts import find_data_set
from kits.data.preparation import prepare
from kits.io import read_geometry, read_volume, write_volume
from kits.painter.frame import KITS19_DIRECTION
from kits.volume import Grid, Volume, crop
from kits.volume.hu import PAD_HU

REPEATS = 7
NOISE_HU = 12
SCANS = {
    "read_129_slices": upright((129, 512, 512), (3.0, 0.8, 0.8)),
    "read_slice_first": Grid((602, 512, 512), (1.0, 0.8, 0.8), (0.0, 0.0, 0.0), KITS19_DIRECTION),
}
WORKERS = 2
SHAPE, PATCH, SPACING = (600, 512, 512), (96, 160, 160), (0.5, 0.8, 0.8)
DRAWS = 60


def measure_reading(config: dict[str, Any]) -> dict[str, float]:
    """Measure seconds of `read_volume` over those of `SimpleITK.ReadImage`, the best of some, by scan."""
    ratios = {}
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for name, grid in SCANS.items():
        with scratch_folder(config) as scratch:
            path = scratch / f"{name}.nii.gz"
            write_volume(path, draw_scan(grid.shape_zyx), grid)
            path.read_bytes()  # neither reader waits for the disk
            readers = {"kits": lambda path=path: read_volume(path), "itk": lambda path=path: sitk.ReadImage(str(path))}
            taken = {reader: min(times) for reader, times in in_turn(readers, REPEATS).items()}
            ratios[name] = taken["kits"] / taken["itk"]
            sizes = f"{np.prod(grid.size) * 2 / 1e6:.0f} MB in {os.path.getsize(path) / 1e6:.0f} MB"
            times = f"kits {taken['kits']:.3f} s, SimpleITK {taken['itk']:.3f} s"
            print(f"{name:>28} {sizes}: {times}, ratio {ratios[name]:.2f}", flush=True)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return ratios


def draw_scan(shape: tuple[int, int, int]) -> np.ndarray:
    """Draw a body with a spine in air and noise, int16 HU (z, y, x), which compresses about 2:1."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    body = (x / 0.85) ** 2 + (y / 0.65) ** 2 < 1
    spine = x**2 + (y - 0.35) ** 2 < 0.01
    tissue = 40 + 60 * np.sin(5 * x) * np.cos(4 * y)
    result = np.empty(shape, np.int16)
    for z, plane in enumerate(result):
        hu = np.where(spine, 400, np.where(body, tissue + 20 * np.sin(z / 9), -1000))
        plane[...] = hu + rng.normal(0, NOISE_HU, plane.shape)
    return result


def measure_preparing(config: dict[str, Any]) -> dict[str, float]:
    """Measure `prepare` over reading all files, and `worker_memory`: its peak over the largest volume."""
    root = Path(config["root"])
    data: Data = parse(Data, {**config["data"], "root": str(root), "workers": WORKERS}, "data")
    cases = list(find_data_set(data, root).cases.values())
    largest = max(math.prod(read_geometry(case.image).size) * 2 for case in cases)
    files = sorted((path for case in cases for path in (case.image, case.label)), key=lambda path: -path.stat().st_size)
    for path in files:  # once for all: nobody waits for the disk
        path.read_bytes()
    with scratch_folder(config) as cache:
        before = read_all(files)
        # The only children of that process are the workers: their peak is what the system reports for children.
        taken, peak = in_fresh_process(timed_prepare, data.model_copy(update={"cache": str(cache)}))
        after = read_all(files)
    print(
        f"{len(cases)} cases: reading {before:.1f} s and {after:.1f} s, prepare {taken:.1f} s;"
        f" largest volume {largest / 1e6:.0f} MB, worker {peak / 1e6:.0f} MB"
    )
    return {"prepare": taken / ((before + after) / 2), "worker_memory": peak / largest}


def read_all(files: list[Path]) -> float:
    """Time, in seconds, to decompress every file in two processes, the largest first."""
    return seconds(lambda: map_cases(read_to_end, [(file,) for file in files], workers=WORKERS, desc="read"))


def read_to_end(path: Path) -> None:
    """Decompress a file and forget it."""
    with gzip.open(path) as stream:
        while stream.read(1 << 20):
            pass


def timed_prepare(data: Data) -> tuple[float, float]:
    """Time a prepare in seconds, and measure the peak resident bytes of the largest of its workers."""
    return seconds(lambda: prepare(data)), 1e9 * peak_gb(children=True)


def measure_access(config: dict[str, Any]) -> dict[str, float]:
    """Measure `patch_ms`, the median of a 96 x 160 x 160 patch of image and label, warm."""
    with scratch_folder(config) as cache:
        case = CachedCase(cache, write_case(cache, parse(Data, config["data"], "data")))
        case.image.max(), case.label.max()  # warm: every page has been read
        corners = np.random.default_rng(1).integers(0, np.subtract(SHAPE, PATCH), (DRAWS, 3)).tolist()

        def draw() -> None:
            corner = corners.pop()
            crop(case.image, corner, PATCH, PAD_HU)
            crop(case.label, corner, PATCH, BACKGROUND)

        return {"patch_ms": 1000 * median(seconds(draw) for _ in range(DRAWS))}


def write_case(cache: Path, data: Data) -> CaseRecord:
    """Write a case of noise with two kidneys' worth of labels by the cache's own writers; its record."""
    grid = upright(SHAPE, SPACING)
    hu = np.random.default_rng(0).integers(-1024, 400, SHAPE, dtype=np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[200:400, 200:300, 100:200] = labels[200:400, 200:300, 300:400] = 1
    folder = cache / "case"
    folder.mkdir()
    kept = arrays.write_labels(Volume(labels, SPACING, grid), data.coarse_size, folder)
    arrays.write_image(Volume(hu, SPACING, grid), kept, len(data.classes), data.coarse_size, folder)
    slices = arrays.kidney_slices(kept.coarse)
    return {"id": "case", "folder": "case", "spacing": [*SPACING], "shape": [*SHAPE], "boxes": [], "kidney_slices": slices}
