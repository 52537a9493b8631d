"""Training cases of real CT with drawn kidneys; each variant has tumors and cysts of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits.config.schema.phantoms import Phantom
from kits.core.errors import KitsError
from kits.core.labels import BACKGROUND, CYST, KIDNEY, TUMOR
from kits.data.index import IMAGE_NAME, LABEL_NAME
from kits.io import read_labels, read_volume, whole_folder, write_labels, write_volume
from kits.painter.fields import Triple
from kits.painter.frame import KITS19_DIRECTION
from kits.painter.grain import grain_of
from kits.painter.lesions import paint_lesions
from kits.painter.loops import set_loops
from kits.painter.phases import draw_contrast
from kits.painter.real_scan import RealScan, measure_contrast
from kits.painter.regrid import Made, crop_slices, refilter, regrid
from kits.painter.rephase import rephase
from kits.painter.shapes import draw_cyst_radius, draw_radius
from kits.volume import Grid

# Edges of the kidneys are no noise.
CORE = np.ones((1, 3, 3))


@dataclass(frozen=True)
class RealPlan:
    """One case to write: its id, its scan's folder, its variant, and the options."""

    case_id: str
    scan: Path
    variant: int
    options: Phantom


def real_plans(options: Phantom, first: int) -> list[RealPlan]:
    """Return the variants of every scan in `images`, scan by scan; ids count on from `first`.

    Raises:
        KitsError: no such folder, no scan in it, or a name in `only` or `exclude` that is none of theirs.
    """
    folder = Path(str(options.images))
    if not folder.is_dir():
        raise KitsError(f"images={folder}: no such folder; give one that holds NAME/{IMAGE_NAME} and NAME/{LABEL_NAME}")
    found = {
        path.parent.name: path.parent for path in sorted(folder.glob(f"*/{IMAGE_NAME}")) if (path.parent / LABEL_NAME).exists()
    }
    if not found:
        raise KitsError(f"images={folder}: no NAME/{IMAGE_NAME} with a {LABEL_NAME} in it; give a folder that has some")
    for key, names in (("only", options.only or []), ("exclude", options.exclude)):
        if unknown := sorted(set(names) - set(found)):
            raise KitsError(f"{key}: images={folder} has no scan {unknown[0]}; it has {', '.join(found)}")
    chosen = [path for name, path in found.items() if name in (options.only or found) and name not in options.exclude]
    if not chosen:
        raise KitsError(f"images={folder}: only and exclude leave no scan of {', '.join(found)}; name fewer")
    pairs = [(path, variant) for path in chosen for variant in range(options.variants)]
    return [RealPlan(f"case_{first + number:05d}", path, variant, options) for number, (path, variant) in enumerate(pairs)]


def write_real_case(plan: RealPlan) -> dict[str, Any]:
    """Write a variant of a scan, which follows from seed, name and number; its entry in kits.json."""
    options = plan.options
    rng = np.random.default_rng([options.seed, crc32(plan.scan.name.encode()), plan.variant])
    image = read_volume(plan.scan / IMAGE_NAME)
    labels = read_labels(plan.scan / LABEL_NAME, allowed=(BACKGROUND, KIDNEY, TUMOR, CYST)).array.copy()
    if labels.shape != image.array.shape:
        raise KitsError(f"{plan.scan}: {IMAGE_NAME} and {LABEL_NAME} have other shapes; both show the same voxels")
    if not (labels == KIDNEY).any():
        raise KitsError(
            f"{plan.scan / LABEL_NAME}: no kidney (label {KIDNEY}) in it; leave it out with exclude=[{plan.scan.name}]"
        )
    scan = RealScan(image.array.astype(np.float32), labels, image.spacing)
    grain = grain_of(scan.hu, ndimage.binary_erosion(labels == KIDNEY, CORE, iterations=2))
    contrast = measure_contrast(scan, rng)
    if rng.random() < options.real.rephased:
        wanted = draw_contrast(rng, options.phases.model_dump())
        rephase(rng, scan, contrast, wanted)
        contrast = wanted
    labels[labels == CYST] = options.real.cyst_label
    tumors = [draw_radius(rng, options.tumor_radius) for _ in range(rng.poisson(options.real.tumors))]
    cysts = [draw_cyst_radius(rng) for _ in range(rng.poisson(options.real.cysts))]
    counts = paint_lesions(rng, scan, contrast, grain, tumors, cysts, options.real.cyst_label)
    loops = set_loops(rng, scan, contrast, grain, int(rng.poisson(options.real.bowel))) if options.real.bowel else 0

    made = crop_slices(rng, Made(scan.hu, labels, scan.spacing), options)
    if rng.random() < options.real.regridded:
        made = regrid(rng, made, options)
    made = refilter(rng, made, grain, options)
    mirrored = rng.random() < options.real.mirrored
    hu, labels = (made.hu[..., ::-1], made.labels[..., ::-1]) if mirrored else (made.hu, made.labels)
    painted = {"scan": plan.scan.name, "variant": plan.variant, "phase": contrast.phase, "mirrored": mirrored}
    painted |= {"tumors": counts[0], "cysts": counts[1], "bowel": loops}
    grid = kits19_grid(labels.shape, made.spacing)
    return write_painted(Path(options.output), plan.case_id, labels, np.rint(hu).astype(np.int16), grid, painted)


def kits19_grid(shape: tuple[int, ...], spacing: Triple) -> Grid:
    """Make a grid of this shape and spacing in mm (z, y, x) with the axes of KiTS19's files."""
    depth, height, width = shape
    return Grid((depth, height, width), spacing, (0.0, 0.0, 0.0), KITS19_DIRECTION)


def write_painted(
    output: Path, case_id: str, labels: NDArray[np.uint8], hu: NDArray[np.int16], grid: Grid, painted: dict[str, Any]
) -> dict[str, Any]:
    """Write the two files of a case; its entry in kits.json, where `painted` says how it was made."""
    with whole_folder(output / case_id) as folder:
        write_labels(folder / LABEL_NAME, labels, grid)
        write_volume(folder / IMAGE_NAME, hu, grid)
    z, y, x = grid.spacing_zyx
    return {"case_id": case_id, "voxel_spacing": {"x_spacing": x, "y_spacing": y, "z_spacing": z}, "painted": painted}
