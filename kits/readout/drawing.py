"""Pictures of where a tumor's numbers were taken: diameters, polar lines, the exophytic part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kits.core.labels import TUMOR
from kits.readout.readings import Shapes
from kits.reporting.scene import COLORS, FAINT, INK, PAPER, scale_bar, write
from kits.reporting.slices import WINDOW_HU
from kits.reporting.surfaces import render, surface_field
from kits.volume import Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What the kidney's own outline holds of a tumor, and what looks out of it.
HUES = {**COLORS, "inside": COLORS["tumor"], "outside": "#ffb347", "sinus": "#f7e36b"}
AROUND_MM = 25.0
GRID_MM = 1.25


def tumor_figure(shapes: Shapes, index: int, spacing: Spacing, hu: np.ndarray | None) -> Figure:
    """Draw one tumor of a kidney, counted from 0: the axial and coronal views, and the surfaces.

    The axial view is the slice of its diameter.

    Args:
        spacing: (z, y, x) mm of the label map.
        hu: the CT, where there is one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.4), dpi=80, facecolor=PAPER)
    places = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.9, bottom=0.01, wspace=0.02)
    for axes, title in zip(places, ("axial diameters", "polar lines, from the front", "outside of the outline"), strict=True):
        axes.set_axis_off()
        axes.set_title(title, color=INK, fontsize=12)
    _draw_slice(places[0], shapes, index, spacing, hu)
    _draw_coronal(places[1], shapes, index)
    _draw_surface(places[2], shapes)
    return figure


def _draw_slice(axes: Axes, shapes: Shapes, index: int, spacing: Spacing, hu: np.ndarray | None) -> None:
    diameters, region = shapes.diameters[index], shapes.region
    labels = region.labels[diameters.slice]
    first, rows, columns = (part.start for part in region.window)
    number = first + diameters.slice
    middle = diameters.ends.mean(axis=0)
    half = diameters.axial / 2 + AROUND_MM
    if hu is not None:
        picture = hu[number]
        extent = (-0.5 - columns, picture.shape[1] - 0.5 - columns, picture.shape[0] - 0.5 - rows, -0.5 - rows)
        axes.imshow(picture, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, aspect=spacing[1] / spacing[2])
    for mask, name in (((labels > 0), "kidney"), (region.tumors[diameters.slice] == index + 1, "tumor")):
        padded = np.pad(mask, 1).astype(float)
        if mask.any():
            grid = [np.arange(-1, n + 1) for n in mask.shape]
            axes.contour(grid[1], grid[0], padded, levels=[0.5], colors=[COLORS[name]], linewidths=1.2)
    for ends, length, style in ((diameters.ends, diameters.axial, "-"), (diameters.short_ends, diameters.short, "--")):
        axes.plot(ends[:, 1], ends[:, 0], style, color=INK, linewidth=1.6, label=f"{length:.1f} mm")
    axes.set_aspect(spacing[1] / spacing[2])
    axes.set_xlim(middle[1] - half / spacing[2], middle[1] + half / spacing[2])
    axes.set_ylim(middle[0] + half / spacing[1], middle[0] - half / spacing[1])
    if shapes.outline is not None:
        _draw_outline(axes, shapes, number, spacing, half)
    axes.legend(loc="lower left", facecolor=PAPER, labelcolor=INK, framealpha=0.7)
    write(axes, 0.02, 0.97, f"slice {number} from the feet, the first is 0", color=FAINT, size=9, va="top")
    _draw_sides(axes, "RLAP")
    scale_bar(axes, 2 * half)


def _draw_outline(axes: Axes, shapes: Shapes, k: int, spacing: Spacing, half: float) -> None:
    """Draw the outline that the kidney would have in slice `k` of the map, in a view of 2 x `half` mm."""
    cubes, outline = shapes.cubes, shapes.outline
    assert outline is not None
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    rows, columns = np.linspace(top, bottom, int(4 * half)), np.linspace(left, right, int(4 * half))
    _, y0, x0 = (part.start for part in shapes.region.window)
    y, x = np.meshgrid((rows + y0) * spacing[1], (columns + x0) * spacing[2], indexing="ij")
    places = np.stack([np.full(y.shape, k * spacing[0]), y, x], axis=-1).reshape(-1, 3)
    inside = outline.contains((places - cubes.origin) / cubes.step).reshape(y.shape)
    if inside.any() and not inside.all():
        axes.contour(columns, rows, inside, levels=[0.5], colors=[HUES["outside"]], linewidths=1.2, linestyles="dotted")
        axes.plot([], [], ":", color=HUES["outside"], label="the kidney's own outline")


def _draw_sides(axes: Axes, letters: str) -> None:
    """Write which way left, right, up and down of a view run in the patient."""
    for (x, y), letter in zip(((0.02, 0.5), (0.97, 0.5), (0.5, 0.97), (0.5, 0.02)), letters, strict=True):
        write(axes, x, y, letter, color=FAINT, size=11, va="top" if y > 0.9 else "bottom")


def _draw_coronal(axes: Axes, shapes: Shapes, index: int) -> None:
    cubes = shapes.cubes
    kidney, tumor = (cubes.labels > 0).any(axis=1), cubes.tumor(index).any(axis=1)
    picture = np.zeros((*kidney.shape, 4))
    for mask, name, alpha in ((kidney, "kidney", 0.35), (shapes.sinus.mask.any(axis=1), "sinus", 0.6), (tumor, "tumor", 0.75)):
        from matplotlib.colors import to_rgba

        picture[mask] = to_rgba(HUES[name], alpha)
    axes.imshow(picture, origin="lower")
    lines = shapes.sinus.polar_lines
    for line in lines or ():
        axes.axhline(line, color=INK, linestyle="--", linewidth=1.2)
    if lines is None:
        write(axes, 0.5, 0.07, "no sinus found, so no polar lines", color=FAINT, size=9, ha="center")
    _draw_sides(axes, "RLSI")
    scale_bar(axes, cubes.labels.shape[2] * cubes.step)


def _draw_surface(axes: Axes, shapes: Shapes) -> None:
    cubes, cube = shapes.cubes, (shapes.cubes.step,) * 3
    points = np.argwhere(cubes.labels == TUMOR)
    outside = np.zeros(cubes.labels.shape, bool)
    if shapes.outline is not None and len(points):
        beyond = points[~shapes.outline.contains(points.astype(float))]
        outside[tuple(beyond.T)] = True
    masks = {"kidney": cubes.kidney, "inside": (cubes.labels == TUMOR) & ~outside, "outside": outside}
    fields = {name: surface_field(mask, cube, GRID_MM) for name, mask in masks.items() if mask.any()}
    # From the side on which more of it shows.
    behind = bool(len(points) and points[:, 1].mean() > cubes.labels.shape[1] / 2)
    axes.imshow(render(fields, behind=behind, hues=HUES), origin="lower", interpolation="bicubic")
    write(axes, 0.02, 0.97, "from behind" if behind else "from the front", color=FAINT, size=9, va="top")
    for y, name in ((0.06, "outside"), (0.02, "inside")):
        write(axes, 0.03, y, f"{name} of the kidney's own outline", color=HUES[name], size=9)
    _draw_sides(axes, "LRSI" if behind else "RLSI")
