"""The time of a random patch from the cache once the system has its pages."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kits.bench.timing import scratch_folder, seconds, upright
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.core.labels import BACKGROUND
from kits.data import arrays
from kits.data.cached_case import CaseRecord
from kits.data.datasets import CachedCase
from kits.volume import Volume, crop
from kits.volume.hu import PAD_HU

SHAPE, PATCH, SPACING = (600, 512, 512), (96, 160, 160), (0.5, 0.8, 0.8)
DRAWS = 60


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure `patch_ms`, the median of a 96 x 160 x 160 patch of image and label, warm."""
    with scratch_folder(config) as cache:
        case = CachedCase(cache, write(cache, parse(Data, config["data"], "data")))
        case.image.max(), case.label.max()  # warm: every page has been read
        corners = np.random.default_rng(1).integers(0, np.subtract(SHAPE, PATCH), (DRAWS, 3)).tolist()

        def draw() -> None:
            corner = corners.pop()
            crop(case.image, corner, PATCH, PAD_HU)
            crop(case.label, corner, PATCH, BACKGROUND)

        return {"patch_ms": 1000 * median(seconds(draw) for _ in range(DRAWS))}


def write(cache: Path, data: Data) -> CaseRecord:
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
