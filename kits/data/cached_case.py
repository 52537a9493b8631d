"""A case of the cache as trainings read it: memory maps, opened when they are first asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from kits.core.errors import KitsError
from kits.data.records import CaseRecord
from kits.volume import Spacing
from kits.volume.rois import Box


class CachedCase:
    """One case of the cache; its arrays are opened when first read, in whichever process reads them."""

    def __init__(self, cache: Path, record: CaseRecord) -> None:
        self.id: str = record["id"]
        self.folder = cache / record["folder"]
        z, y, x = record["spacing"]
        self.spacing: Spacing = z, y, x
        self.shape: tuple[int, ...] = tuple(record["shape"])
        self.boxes = [Box.from_list(box) for box in record["boxes"]]
        first, last = record["kidney_slices"]
        self.kidney_slices = first, last

    def _open(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @cached_property
    def image(self) -> np.ndarray:
        """int16 HU (z, y, x) at original resolution."""
        return self._open("image")

    @cached_property
    def label(self) -> np.ndarray:
        """uint8 (z, y, x) at original resolution."""
        return self._open("label")

    @cached_property
    def coarse_image(self) -> np.ndarray:
        """int16 HU (z, size, size) on the coarse grid."""
        return self._open("coarse_image")

    @cached_property
    def coarse_label(self) -> np.ndarray:
        """uint8 (z, size, size) on the coarse grid."""
        return self._open("coarse_label")

    @cached_property
    def tumor_points(self) -> np.ndarray:
        """int32 (n, 3): voxels of tumor at original resolution."""
        points: np.ndarray = np.load(self.folder / "tumor_points.npy")
        if not ((points >= 0) & (points < self.shape)).all():
            raise self.damaged("tumor_points", "has voxels outside the scan")
        return points

    def damaged(self, name: str, what: str) -> KitsError:
        """Return the refusal of an array that `kits.prepare` did not write so."""
        return KitsError(f"{self.folder / name}.npy: damaged ({what}); delete {self.folder} and run kits.prepare again")

    def __getstate__(self) -> dict[str, object]:
        # A memory map that travels to a worker would travel as its whole content.
        arrays = ("image", "label", "coarse_image", "coarse_label", "tumor_points")
        return {name: value for name, value in self.__dict__.items() if name not in arrays}
