"""Measure a label map, kidney by kidney and tumor by tumor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kits.core.labels import CYST, KIDNEY, TUMOR
from kits.readout.cubes import Cubes, cubes_of, distance_to
from kits.readout.diameters import Diameters, diameters_of
from kits.readout.intensities import Intensities, muscle_hu
from kits.readout.kidney_frame import KidneyFrame
from kits.readout.kidneys import SIDES, KidneyRegion, separate
from kits.readout.nephrometry import ANTERIOR, NEITHER, POSTERIOR, Position, padua, renal
from kits.readout.outline import outline_of
from kits.readout.readings import CaseReading, KidneyReading, Shapes, TumorReading
from kits.readout.sinus import find_sinus
from kits.readout.slice_areas import integrated_ml
from kits.readout.tumor_surface import LEAST_KEPT, TumorSurface, sphericity, surface_of
from kits.volume import Spacing

# Beside a tumor as far as slices are apart, or this, interpolation rounds the kidney's surface.
LEAST_BLUR_MM = 2.0
# Ours: a tumor whose center is less than this share of its radius off the kidney's own plane lies on neither face.
ON_THE_PLANE = 0.25
MARGINS_MM = (5, 10)
RAGGED = "ragged: half of it is thinner than a voxel or two, so what depends on its shape is not measured"


def read_out(labels: np.ndarray, spacing: Spacing, hu: np.ndarray | None = None) -> CaseReading:
    """Measure a label map.

    Args:
        labels: uint8 (z, y, x), running superior, posterior and left: 0 background, 1 kidney, 2 tumor, 3 cyst.
        spacing: (z, y, x) mm.
        hu: the CT on the same grid.
    """
    separated = separate(labels, spacing, hu)
    flags = [] if separated.kidneys else ["empty: no kidney in the label map"]
    if separated.specks:
        flags.append(f"specks: {separated.specks} pieces of tumor under 0.1 mL, {separated.specks_ml:.2f} mL, are not measured")
    kidneys = {side: KidneyReading(side, present=False, flags=["absent, or outside of the image"]) for side in SIDES}
    tumors, shapes = [], []
    for region in separated.kidneys:
        kidneys[region.side], own, shape = _measure_kidney(region, spacing, labels, hu)
        tumors += own
        shapes.append(shape)
    total = sum(kidney.parenchyma_ml or 0 for kidney in kidneys.values())
    both = [
        replace(kidney, share_of_parenchyma=(kidney.parenchyma_ml or 0) / total if total and kidney.present else None)
        for kidney in kidneys.values()
    ]
    return CaseReading(both, tumors, flags, shapes)


def _measure_kidney(
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
    frame = KidneyFrame.of(cubes, sinus, outline, region.side)
    flags = [*region.flags, *frame.flags]
    if ragged:
        flags.append(RAGGED)
    own_hu = None if hu is None else hu[region.window]
    parenchyma = cyst = enhancement = None
    if hu is not None and own_hu is not None:
        parenchyma, cyst = (Intensities.of(own_hu[region.labels == label]) for label in (KIDNEY, CYST))
        muscle = muscle_hu(hu, labels, region, spacing)
        if muscle is None:
            flags.append("no muscle behind it to compare its HU with")
        elif parenchyma is not None:
            enhancement = parenchyma.p50 - muscle
    lines = sinus.polar_lines
    kidney = KidneyReading(
        side=region.side,
        present=True,
        parenchyma_ml=float(counts[KIDNEY]) * voxel_ml,
        cyst_ml=float(counts[CYST]) * voxel_ml,
        tumor_ml=float(counts[TUMOR]) * voxel_ml,
        length_mm=None if outline is None else frame.length_mm,
        sinus_ml=float(sinus.mask.sum()) * cubes.step**3 / 1000 if measurable else None,
        polar_lines_mm=None if lines is None else [cubes.origin[0] + line * cubes.step for line in lines],
        hu_parenchyma=parenchyma,
        hu_cyst=cyst,
        enhancement_hu=enhancement,
        flags=flags,
    )
    masks = [region.tumors == number for number in range(1, region.tumor_count + 1)]
    volumes = [float(np.count_nonzero(mask)) * voxel_ml for mask in masks]
    diameters = [diameters_of(mask, spacing) for mask in masks]
    integrated = [integrated_ml(mask, spacing) for mask in masks]
    surfaces = [surface_of(cubes, region, spacing, index, volume) for index, volume in enumerate(integrated)]
    tumors = [
        _measure_tumor(index, region, (volumes[index], integrated[index]), diameters[index], surfaces[index], cubes, frame)
        for index in range(len(masks))
    ]
    if own_hu is not None:
        tumors = [replace(tumor, hu=Intensities.of(own_hu[mask])) for tumor, mask in zip(tumors, masks, strict=True)]
    return kidney, tumors, Shapes(region, cubes, sinus, outline, diameters)


def _measure_tumor(
    index: int,
    region: KidneyRegion,
    volumes_ml: tuple[float, float],
    diameters: Diameters,
    surface: TumorSurface | None,
    cubes: Cubes,
    frame: KidneyFrame,
) -> TumorReading:
    """Measure one tumor of a kidney, counted from 0, but for its HU.

    Args:
        volumes_ml: by voxels, and integrated.
    """
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
        contact = surface.contact_mm2
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
        volume_ml=volumes_ml[0],
        integrated_ml=volumes_ml[1],
        axial_mm=diameters.axial,
        short_mm=diameters.short,
        diameter_3d_mm=diameters.in_space,
        sphericity=None if surface is None else sphericity(volumes_ml[1], surface.area_mm2),
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
        flags=flags,
    )
