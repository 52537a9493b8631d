"""Planes of the CT with the prediction and the truth drawn on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kits.core.labels import BACKGROUND, TUMOR
from kits.reporting.scene import (
    COLORS,
    FAINT,
    INK,
    TRUTH_COLORS,
    Scene,
    length,
    scale_bar,
    write,
)
from kits.volume import bounding_slices
from kits.volume.rois import body_box
from kits.volume.windows import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_HU = (-160, 240)  # the usual abdominal soft-tissue window
BODY_HU = -500
WIDTH = 15.0  # inches of the slices' figure
ROW_SLICES = 6
TALLEST_MM = 420.0  # longer scans are cut to this height around what is marked
# By the axis that is looked along: its name, and the letters at the left, right, top and bottom of the picture.
PLANES = {0: ("axial", "RLAP"), 1: ("coronal", "RLSI"), 2: ("sagittal", "APSI")}


def slices_figure(scene: Scene) -> Figure:
    """Draw three planes through the largest tumor (or kidney), and a row of axial details."""
    from matplotlib.figure import Figure

    focus, body, close = focus_point(scene), body_window(scene), detail_window(scene)
    z, y, x = (length(part) * step for part, step in zip(body, scene.spacing, strict=True))
    detail = length(close[1]) * scene.spacing[1] / (length(close[2]) * scene.spacing[2])
    tall = WIDTH * max(y, z) / (x + x + y)  # inches: the three planes share one scale
    low = WIDTH / ROW_SLICES * detail
    head, foot = 0.2 + 0.3 * len(scene.headings), 0.45
    height = head + tall + 0.12 + low + foot
    figure = Figure(figsize=(WIDTH, height), dpi=100)
    color = INK if scene.prediction.any() else COLORS["tumor"]
    figure.suptitle("          ".join(scene.headings), color=color, fontsize=14, y=1 - 0.25 / height, va="center")
    edges = {"left": 0.004, "right": 0.996, "wspace": 0.015}
    upper = figure.add_gridspec(1, 3, top=1 - 0.5 / height, bottom=(foot + low + 0.12) / height, width_ratios=[x, x, y], **edges)
    for axis in range(3):
        axes = figure.add_subplot(upper[0, axis])
        draw_plane(axes, scene, axis, focus[axis], body)
        # Ticks at the edges where the other two planes cut this one.
        vertical, horizontal = ((focus[other] + 0.5) * scene.spacing[other] for other in range(3) if other != axis)
        for first, last in ((0.0, 0.025), (0.975, 1.0)):
            axes.axhline(vertical, first, last, color="white", linewidth=1.0)
            axes.axvline(horizontal, first, last, color="white", linewidth=1.0)
    lower = figure.add_gridspec(1, ROW_SLICES, top=(foot + low) / height, bottom=foot / height, **edges)
    for place, index in enumerate(detail_slices(scene)):
        draw_plane(figure.add_subplot(lower[0, place]), scene, 0, index, close)
    _legend(figure, scene)
    return figure


def focus_point(scene: Scene) -> tuple[int, int, int]:
    """Find the voxel (z, y, x) whose planes cut most of the found tumor.

    Where there is none it is the missed tumor, else kidneys, else the middle of the scan.
    """
    for tumor in (True, False):
        for labels in scene.maps:
            mask = labels == TUMOR if tumor else labels != BACKGROUND
            window = bounding_slices(mask)
            if window is not None:
                inside = mask[window]
                others = ((1, 2), (0, 2), (0, 1))
                z, y, x = (p.start + int(inside.sum(axis=o).argmax()) for p, o in zip(window, others, strict=True))
                return z, y, x
    z, y, x = (n // 2 for n in scene.hu.shape)
    return z, y, x


def body_window(scene: Scene) -> Window:
    """Find rows and columns of the body, and the slices; of a long scan those around what is marked."""
    _, rows, columns = body_box(scene.hu, BODY_HU).slices
    marked = scene.marked or (slice(0, len(scene.hu)), rows, columns)
    most = int(TALLEST_MM / scene.spacing[0])
    first = min(max(0, (marked[0].start + marked[0].stop - most) // 2), max(0, len(scene.hu) - most))
    inside = (slice(first, first + most), rows, columns)
    return scene.clip((min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(inside, marked, strict=True))


def detail_window(scene: Scene, margin_mm: float = 20.0) -> Window:
    """Return the part of an axial plane around all that is marked, at least two thirds as high as wide."""
    if scene.marked is None:
        return body_window(scene)
    z, y, x = scene.marked
    _, dy, dx = scene.spacing
    missing = max(0.0, 0.67 * length(x) * dx - length(y) * dy) / 2
    rows, columns = int((margin_mm + missing) / dy), int(margin_mm / dx)
    grown = ((z.start, z.stop), (y.start - rows, y.stop + rows), (x.start - columns, x.stop + columns))
    return scene.clip(grown)


def detail_slices(scene: Scene) -> list[int]:
    """Choose slices spread evenly, from the top down, over what is marked, or over the scan."""
    z, _, _ = scene.marked or (slice(0, len(scene.hu)), None, None)
    return [int(z.start + (place + 0.5) * length(z) / ROW_SLICES) for place in reversed(range(ROW_SLICES))]


def draw_plane(axes: Axes, scene: Scene, axis: int, index: int, window: Window) -> None:
    """Draw one plane of the CT to scale in mm: the prediction filled and outlined, the truth outlined."""
    dv, dh = (step for other, step in enumerate(scene.spacing) if other != axis)
    rows, columns = (part for other, part in enumerate(window) if other != axis)
    # mm of the whole plane; slices grow upward, rows grow downward
    sides = (columns.start * dh, columns.stop * dh, rows.start * dv, rows.stop * dv)
    axes.imshow(
        np.take(scene.hu, index, axis)[rows, columns],
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        extent=sides,
        origin="lower",
        interpolation="bilinear",
        aspect="equal",
    )
    # Padded by a voxel of background, so that an outline closes at the border of the volume too.
    h, v = (np.arange(columns.start - 1, columns.stop + 1) + 0.5) * dh, (np.arange(rows.start - 1, rows.stop + 1) + 0.5) * dv
    for labels, colors in ((scene.prediction, COLORS), (scene.truth, TRUTH_COLORS)):
        if labels is None:
            continue
        cut = np.pad(np.take(labels, index, axis)[rows, columns], 1)
        for label, name in scene.names.items():
            if colors is COLORS and (cut == label).any():
                axes.contourf(h, v, cut == label, levels=[0.5, 1.5], colors=[colors[name]], alpha=0.22)
            region = np.isin(cut, scene.regions[name])
            if region.any():
                axes.contour(h, v, region, levels=[0.5], colors=[colors[name]], linewidths=1.1)
    left, right, low, high = sides
    axes.set_xlim(left, right)
    axes.set_ylim((high, low) if axis == 0 else (low, high))
    axes.set_axis_off()
    name, letters = PLANES[axis]
    write(axes, 0.02, 0.98, f"{name} {index + 1}", va="top")
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"), (0.5, 0.98, "center", "top"))
    for letter, (a, b, ha, va) in zip(letters, (*places, (0.5, 0.02, "center", "bottom")), strict=True):
        write(axes, a, b, letter, color=FAINT, ha=ha, va=va)
    scale_bar(axes, right - left)


def _legend(figure: Figure, scene: Scene) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [
        Patch(facecolor=to_rgba(COLORS[name], 0.3), edgecolor=COLORS[name], label=name) for name in scene.names.values()
    ]
    if scene.truth is not None:
        handles += [Line2D([], [], color=TRUTH_COLORS[name], label=f"{name}, truth") for name in scene.names.values()]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, labelcolor=INK, fontsize=11)
