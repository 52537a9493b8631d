"""Everything that is measured of one label map, kidney by kidney and tumor by tumor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from kits.core.labels import CYST, KIDNEY, TUMOR
from kits.readout.contact import LEAST_KEPT, TumorSurface, sphericity, surface_of
from kits.readout.extents import Diameters, diameters_of
from kits.readout.intensities import muscle_hu, statistics_hu
from kits.readout.isotropic import Cubes, cubes_of, distance_to
from kits.readout.kidney_frame import KidneyFrame
from kits.readout.kidneys import SIDES, KidneyRegion, separate
from kits.readout.nephrometry import ANTERIOR, NEITHER, POSTERIOR, Position, padua, renal
from kits.readout.outline import Outline, outline_of
from kits.readout.sinus import Sinus, find_sinus
from kits.volume import Spacing

# Beside a tumor as far as slices are apart, or this, interpolation rounds the kidney's surface.
LEAST_BLUR_MM = 2.0
# Ours: a tumor whose center is less than this share of its radius off the kidney's own plane lies on neither face.
ON_THE_PLANE = 0.25
MARGINS_MM = (5, 10)
RAGGED = "ragged: half of it is thinner than a voxel or two, so what depends on its shape is not measured"


@dataclass(frozen=True)
class TumorReading:
    """One tumor; lengths in mm, areas in mm2, volumes in mL, None where a thing could not be measured (`flags` say why)."""

    id: str
    side: str
    volume_ml: float
    axial_mm: float
    short_mm: float
    diameter_3d_mm: float
    sphericity: float | None
    exophytic_share: float | None
    contact_mm2: float | None
    sinus_mm: float | None
    outline_mm: float | None
    depth_mm: float | None
    between_polar_lines: float | None
    face: str | None
    medial: bool | None
    c_index: float | None
    parenchyma_5mm_ml: float | None
    parenchyma_10mm_ml: float | None
    axial_slice: int
    axial_ends: list[list[float]]
    renal: dict[str, Any]
    padua: dict[str, Any]
    hu: dict[str, float] | None
    flags: list[str] = field(default_factory=list)
    volume_interval_ml: dict[str, float] | None = None
    axial_interval_mm: dict[str, float] | None = None


@dataclass(frozen=True)
class KidneyReading:
    """One kidney; units as in `TumorReading`."""

    side: str
    present: bool
    parenchyma_ml: float | None = None
    cyst_ml: float | None = None
    tumor_ml: float | None = None
    share_of_parenchyma: float | None = None
    length_mm: float | None = None
    sinus_ml: float | None = None
    polar_lines_mm: list[float] | None = None
    hu_parenchyma: dict[str, float] | None = None
    hu_cyst: dict[str, float] | None = None
    enhancement_hu: float | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shapes:
    """What a kidney's numbers were taken from, for pictures."""

    region: KidneyRegion
    cubes: Cubes
    sinus: Sinus
    outline: Outline | None
    diameters: list[Diameters]
    surfaces: list[TumorSurface | None]


@dataclass(frozen=True)
class CaseReading:
    """A whole case: its kidneys, its tumors, and what a reader must know of the map."""

    kidneys: list[KidneyReading]
    tumors: list[TumorReading]
    flags: list[str]
    shapes: list[Shapes] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """A plain container, without the shapes."""
        return {
            "kidneys": [asdict(kidney) for kidney in self.kidneys],
            "tumors": [asdict(tumor) for tumor in self.tumors],
            "flags": self.flags,
        }


def read_out(labels: np.ndarray, spacing: Spacing, hu: np.ndarray | None = None, middle_mm: float | None = None) -> CaseReading:
    """Measure a label map.

    Args:
        labels: uint8 (z, y, x), running superior, posterior and left: 0 background, 1 kidney, 2 tumor, 3 cyst.
        spacing: (z, y, x) mm.
        hu: the CT on the same grid.
        middle_mm: the patient's middle along x, from the center of the first column; None takes the middle of the image.
    """
    separated = separate(labels, spacing, middle_mm)
    flags = [] if separated.kidneys else ["empty: no kidney in the label map"]
    if separated.specks:
        flags.append(f"specks: {separated.specks} pieces of tumor under 0.1 mL, {separated.specks_ml:.2f} mL, are not measured")
    kidneys, tumors, shapes = {}, [], []
    for region in separated.kidneys:
        kidney, own, shape = _measure(region, spacing, labels, hu)
        kidneys[region.side] = kidney
        tumors += own
        shapes.append(shape)
    total = sum(kidney.parenchyma_ml or 0 for kidney in kidneys.values())
    both = []
    for side in SIDES:
        kidney = kidneys.get(side, KidneyReading(side, present=False, flags=["absent, or outside of the image"]))
        both.append(
            replace(kidney, share_of_parenchyma=(kidney.parenchyma_ml or 0) / total if total and kidney.present else None)
        )
    return CaseReading(both, tumors, flags, shapes)


def _measure(
    region: KidneyRegion, spacing: Spacing, labels: np.ndarray, hu: np.ndarray | None
) -> tuple[KidneyReading, list[TumorReading], Shapes]:
    voxel_ml = float(np.prod(spacing)) / 1000
    counts = np.bincount(region.labels.ravel(), minlength=4)
    cubes = cubes_of(region, spacing)
    sinus = find_sinus(cubes, region.side)
    solid = float(counts[KIDNEY] + counts[CYST]) * voxel_ml
    ragged = float(cubes.kidney.sum()) * cubes.step**3 / 1000 < LEAST_KEPT * solid
    measurable = not ragged and not any(flag.startswith("no parenchyma") for flag in region.flags)
    outline = outline_of(cubes, sinus.mask, max(LEAST_BLUR_MM, 0.6 * max(spacing))) if measurable else None
    own_hu = None if hu is None else hu[region.window]
    muscle = None if hu is None else muscle_hu(hu, labels, region, spacing)
    parenchyma_hu = None if own_hu is None else statistics_hu(own_hu[region.labels == KIDNEY])
    frame = KidneyFrame.of(cubes, sinus, outline, region.side)
    diameters = [diameters_of(region.tumors == number, spacing) for number in range(1, region.tumor_count + 1)]
    tumors, surfaces = [], []
    for index, diameter in enumerate(diameters):
        mask = region.tumors == index + 1
        volume = float(np.count_nonzero(mask)) * voxel_ml
        surface = surface_of(cubes, index, max(spacing), volume)
        surfaces.append(surface)
        told = None if own_hu is None else statistics_hu(own_hu[mask])
        tumors.append(_tumor(index, region, volume, diameter, surface, cubes, frame, told))
    lines = sinus.polar_lines
    flags = [*region.flags, *frame.flags]
    if ragged:
        flags.append(RAGGED)
    if hu is not None and muscle is None:
        flags.append("no muscle behind it to compare its HU with")
    kidney = KidneyReading(
        side=region.side,
        present=True,
        parenchyma_ml=float(counts[KIDNEY]) * voxel_ml,
        cyst_ml=float(counts[CYST]) * voxel_ml,
        tumor_ml=float(counts[TUMOR]) * voxel_ml,
        length_mm=None if outline is None else frame.length_mm,
        sinus_ml=float(sinus.mask.sum()) * cubes.step**3 / 1000 if measurable else None,
        polar_lines_mm=None if lines is None else [cubes.origin[0] + line * cubes.step for line in lines],
        hu_parenchyma=parenchyma_hu,
        hu_cyst=None if own_hu is None else statistics_hu(own_hu[region.labels == CYST]),
        enhancement_hu=None if muscle is None or parenchyma_hu is None else parenchyma_hu["p50"] - muscle,
        flags=flags,
    )
    return kidney, tumors, Shapes(region, cubes, sinus, outline, diameters, surfaces)


def _tumor(
    index: int,
    region: KidneyRegion,
    volume_ml: float,
    diameters: Diameters,
    surface: TumorSurface | None,
    cubes: Cubes,
    frame: KidneyFrame,
    hu: dict[str, float] | None,
) -> TumorReading:
    mask = cubes.tumor(index)
    points = np.argwhere(mask)
    outline, lines = frame.outline, frame.sinus.polar_lines
    flags = [flag for flag in region.flags if flag.startswith(("cut", "no parenchyma", "joined"))]
    within: dict[int, float] = {}
    if surface is None:
        flags.append(RAGGED)
    else:
        near = distance_to(mask, (cubes.step,) * 3)
        # Distances are between centers, and the surface lies between them: a cube at the margin counts in part.
        reached = {margin: np.clip((margin - near) / cubes.step + 0.75, 0, 1) for margin in MARGINS_MM}
        parenchyma = cubes.labels == KIDNEY
        within = {margin: float(share[parenchyma].sum()) * cubes.step**3 / 1000 for margin, share in reached.items()}
    exophytic = sinus_mm = outline_mm = depth_mm = c_index = between = contact = None
    crosses = medial = face = None
    if outline is not None and surface is not None:
        exophytic = float(1 - outline.contains(points.astype(float)).mean())
        contact = float(surface.areas[surface.touches].sum())
        depth_mm = float(frame.depth[mask].max())
        outline_mm = max(0.0, float(frame.depth[mask].min()) - cubes.step)
        offset = points.mean(axis=0) - outline.center
        c_index = float(np.linalg.norm(offset)) * cubes.step / (diameters.axial / 2) if diameters.axial else None
        medial = bool(offset[1:] @ frame.medial > 0)
        front = np.array([-frame.medial[1], frame.medial[0]])
        front = front if front[0] < 0 else -front  # y runs to the back
        ahead = float(offset[1:] @ front) * cubes.step
        face = NEITHER if abs(ahead) < ON_THE_PLANE * diameters.axial / 2 else ANTERIOR if ahead > 0 else POSTERIOR
        if frame.sinus.mask.any():
            sinus_mm = max(0.0, float(frame.sinus_distance[mask].min()) - cubes.step)
        if lines is not None:
            z = points[:, 0]
            between = float(((z >= lines[0]) & (z <= lines[1])).mean())
            crosses = bool(z.min() < sum(lines) / 2 < z.max())
    position = Position(diameters.axial, exophytic, sinus_mm, between, crosses, face, medial)
    z0, y0, x0 = (part.start for part in region.window)
    return TumorReading(
        id=f"{region.side}-{index + 1}",
        side=region.side,
        volume_ml=volume_ml,
        axial_mm=diameters.axial,
        short_mm=diameters.short,
        diameter_3d_mm=diameters.in_space,
        sphericity=None if surface is None else sphericity(volume_ml, surface.area_mm2),
        exophytic_share=exophytic,
        contact_mm2=contact,
        sinus_mm=sinus_mm,
        outline_mm=outline_mm,
        depth_mm=depth_mm,
        between_polar_lines=between,
        face=face,
        medial=medial,
        c_index=c_index,
        parenchyma_5mm_ml=within.get(5),
        parenchyma_10mm_ml=within.get(10),
        axial_slice=z0 + diameters.slice,
        axial_ends=[[y0 + float(y), x0 + float(x)] for y, x in diameters.ends],
        renal=renal(position),
        padua=padua(position),
        hu=hu,
        flags=flags,
    )
