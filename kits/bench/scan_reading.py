"""Reading one compressed scan into a checked Volume, against SimpleITK's read of the file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import SimpleITK as sitk

from kits.bench.timing import in_turn, scratch_folder, upright
from kits.io import read_volume, write_volume
from kits.painter.real_cases import kits19_grid

REPEATS = 7
NOISE_HU = 12
SCANS = {
    "read_129_slices": upright((129, 512, 512), (3.0, 0.8, 0.8)),
    "read_slice_first": kits19_grid((602, 512, 512), (1.0, 0.8, 0.8)),
}


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure seconds of `read_volume` over those of `SimpleITK.ReadImage`, the best of some, by scan."""
    ratios = {}
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for name, grid in SCANS.items():
        with scratch_folder(config) as scratch:
            path = scratch / f"{name}.nii.gz"
            write_volume(path, scan(grid.shape_zyx), grid)
            path.read_bytes()  # neither reader waits for the disk
            readers = {"kits": lambda path=path: read_volume(path), "itk": lambda path=path: sitk.ReadImage(str(path))}
            taken = {reader: min(times) for reader, times in in_turn(readers, REPEATS).items()}
            ratios[name] = taken["kits"] / taken["itk"]
            sizes = f"{np.prod(grid.size) * 2 / 1e6:.0f} MB in {os.path.getsize(path) / 1e6:.0f} MB"
            times = f"kits {taken['kits']:.3f} s, SimpleITK {taken['itk']:.3f} s"
            print(f"{name:>28} {sizes}: {times}, ratio {ratios[name]:.2f}", flush=True)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return ratios


def scan(shape: tuple[int, int, int]) -> np.ndarray:
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
