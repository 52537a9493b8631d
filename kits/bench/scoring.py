"""All figures of one large case by `kits.metrics` and by MONAI on the full arrays: time and numbers."""

from __future__ import annotations

import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from kits.bench.timing import peak_gb
from kits.config.schema.benches import EvaluateBench
from kits.config.schema.evaluation import Measures
from kits.core.errors import KitsError
from kits.core.labels import KIDNEY, TUMOR, Regions, evaluated_regions
from kits.data.index import LABEL_NAME
from kits.io import read_labels
from kits.metrics.case import CaseFigures, measure_case
from kits.volume import Spacing, Triple, bounding_slices

T = TypeVar("T")
# Ellipsoids in the place of a real label map: label, center and radii (z, y, x) as shares of the volume and in mm.
BODIES = (
    (KIDNEY, (0.5, 0.55, 0.32), (58, 28, 26)),
    (KIDNEY, (0.55, 0.55, 0.68), (60, 27, 27)),
    (TUMOR, (0.6, 0.5, 0.72), (22, 24, 20)),
)
BODY_SPACING = (0.5, 0.8, 0.8)
MARGIN = 16  # voxels around the labels that the bending may reach
STEP, SMOOTH = 8, 2.0  # the bending is drawn at every eighth voxel and smoothed over two such steps


def measure(options: EvaluateBench) -> dict[str, float]:
    """Measure MONAI's seconds over the slower of our runs before and after, and the largest difference."""
    torch.set_num_threads(1)
    truth, spacing = make_truth(options.root, options.case, options.shape)
    prediction = bend(truth, spacing, options.displacement_mm, options.seed)
    regions, measures = evaluated_regions(options.data.classes), options.measures
    print(f"{truth.shape} voxels of {', '.join(f'{step:.3f}' for step in spacing)} mm; {', '.join(regions)}", flush=True)

    def own() -> CaseFigures:
        return measure_case(prediction, truth, spacing, regions, measures)

    with at_most(options.memory_gib):
        before, case = timed("kits, all figures", own)
        theirs, oracle = monai_figures(prediction, truth, spacing, regions, measures)
        after, _ = timed("kits, again", own)
    difference = 0.0
    for name, value in oracle.items():
        off = abs(case.values[name] - value) / max(1.0, abs(value))
        print(f"{name:>24}  kits {case.values[name]:.6f}  MONAI {value:.6f}  difference {off:.1e}")
        difference = max(difference, off)
    return {"difference": difference, "speed": theirs / max(before, after)}


def make_truth(root: str | None, case: str, shape: Triple) -> tuple[np.ndarray, Spacing]:
    """Make a label map (z, y, x) of this shape, a real one resampled or ellipsoids; and its spacing."""
    if root is None:
        return ellipsoids(shape, BODY_SPACING), BODY_SPACING
    path = Path(root) / case / LABEL_NAME
    volume = read_labels(path, allowed=range(TUMOR + 1))
    places = [np.linspace(0, old - 1, new).round().astype(int) for old, new in zip(volume.array.shape, shape, strict=True)]
    z, y, x = (step * old / new for step, old, new in zip(volume.spacing, volume.array.shape, shape, strict=True))
    return np.ascontiguousarray(volume.array[np.ix_(*places)]), (z, y, x)


def ellipsoids(shape: Triple, spacing: Spacing) -> np.ndarray:
    """Draw two kidneys and a tumor, uint8 labels (z, y, x) of this spacing in mm."""
    labels = np.zeros(shape, np.uint8)
    for label, center, radii in BODIES:
        axes = [
            (np.arange(count) - share * count) * step / radius
            for count, share, step, radius in zip(shape, center, spacing, radii, strict=True)
        ]
        near = [np.flatnonzero(np.abs(axis) <= 1) for axis in axes]
        z, y, x = np.ix_(*(axis[places] for axis, places in zip(axes, near, strict=True)))
        window = tuple(slice(int(places[0]), int(places[-1]) + 1) for places in near)
        labels[window][z**2 + y**2 + x**2 <= 1] = label
    return labels


def bend(labels: np.ndarray, spacing: Spacing, displacement_mm: float, seed: int) -> np.ndarray:
    """Bend labels smoothly: a prediction whose every surface is a little off."""
    rng = np.random.default_rng(seed)
    box = bounding_slices(labels)
    assert box is not None
    window = tuple(slice(max(part.start - MARGIN, 0), part.stop + MARGIN) for part in box)
    inside = labels[window]
    places = np.indices(inside.shape, dtype=np.float32)
    for place, step in zip(places, spacing, strict=True):
        coarse = gaussian_filter(rng.normal(size=[count // STEP + 2 for count in inside.shape]), SMOOTH)
        shift = zoom(coarse, [count / few for count, few in zip(inside.shape, coarse.shape, strict=True)], order=1)
        place += shift / shift.std() * displacement_mm / step
    result = np.zeros_like(labels)
    result[window] = map_coordinates(inside, places, order=0, mode="nearest")
    return result


def monai_figures(
    prediction: np.ndarray, truth: np.ndarray, spacing: Spacing, regions: Regions, measures: Measures
) -> tuple[float, dict[str, float]]:
    """Measure seconds of MONAI's Dice, surface Dice and HD95, and what they say, by our columns.

    Masks are made before the clock starts, of the types that its functions are fastest with.
    """
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    found, true = (
        torch.from_numpy(np.stack([np.isin(array, labels) for labels in regions.values()]))[None] for array in (prediction, truth)
    )
    options: dict[str, Any] = {"include_background": True, "spacing": [float(step) for step in spacing]}
    tolerances = [measures.tolerances_mm[region] for region in regions]
    bytes_ = found.view(torch.uint8), true.view(torch.uint8)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "": lambda: compute_dice(*bytes_, include_background=True),
        "_surface_dice": lambda: compute_surface_dice(found, true, tolerances, use_subvoxels=True, **options),
        "_hd95_mm": lambda: compute_hausdorff_distance(found, true, percentile=95, **options),
    }
    total = 0.0
    figures: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's about its own deprecated arguments
        for suffix, call in calls.items():
            try:
                seconds, values = timed(f"MONAI, {suffix.strip('_') or 'dice'}", call)
            except (MemoryError, RuntimeError) as error:
                raise KitsError(f"memory_gib: too little for MONAI ({error}); allow it more, or take a smaller shape") from error
            total += seconds
            figures |= {f"{region}{suffix}": float(value) for region, value in zip(regions, values[0], strict=True)}
    return total, figures


def timed(name: str, call: Callable[[], T]) -> tuple[float, T]:
    """Measure wall seconds of one call, printed beside those of the processor, and its result."""
    began, worked = time.perf_counter(), time.process_time()
    result = call()
    seconds, busy = time.perf_counter() - began, time.process_time() - worked
    print(f"{name:>24}  {seconds:8.3f} s ({busy:.3f} s of processor)  peak memory so far {peak_gb():.1f} GB", flush=True)
    return seconds, result


@contextmanager
def at_most(gib: float) -> Iterator[None]:
    """Limit the memory that this process may map: what wants more fails, and takes it from nobody else."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
