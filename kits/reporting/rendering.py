"""The surfaces of kidneys, tumors and cysts, cast as rays through a smoothed label map.

Rays through the volume give exact depth order and soft outlines where thousands of translucent triangles would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from kits.reporting.scene import COLORS, FAINT, INK, PAPER, Scene, length, scale_bar, write
from kits.volume import Spacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGE_MM = 12.0  # empty space around what is marked
GRID_MM = 1.25
MOST_VOXELS = 8e6  # of a field; a coarser grid where false positives lie far apart


def surface_figure(scene: Scene) -> Figure:
    """Draw kidneys, tumors and cysts from the front and from behind, the truth beside the prediction."""
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    panels = list(zip(("prediction", "truth"), scene.maps, strict=False))
    window = scene.marked or scene.clip((0, n) for n in scene.hu.shape)
    height, depth, width = (length(part) * step + 2 * EDGE_MM for part, step in zip(window, scene.spacing, strict=True))
    grid_mm = max(GRID_MM, (height * depth * width / MOST_VOXELS) ** (1 / 3))
    across = 6.0
    down = min(5.5, across * height / width)  # a lone kidney is taller than wide
    figure = Figure(figsize=(across * len(panels), 2 * down + 0.95), dpi=100)
    figure.suptitle("\n".join(scene.headings), color=INK, fontsize=13, y=0.99)
    grid = figure.add_gridspec(2, len(panels), left=0, right=1, top=1 - 0.9 / (2 * down + 0.95), bottom=0, wspace=0, hspace=0)
    for column, (title, labels) in enumerate(panels):
        fields = {}
        if labels.any():
            fields = {name: surface_field(labels[window] == label, scene.spacing, grid_mm) for label, name in scene.names.items()}
        for row, (view, letters) in enumerate((("from the front", "RL"), ("from behind", "LR"))):
            axes = figure.add_subplot(grid[row, column])
            picture = render(fields, behind=row == 1) if labels.any() else np.full((2, 2, 3), to_rgb(PAPER))
            axes.imshow(picture, origin="lower", extent=(0, width, 0, height), interpolation="bicubic")
            axes.set_axis_off()
            text = f"{title}, {view}" + ("" if labels.any() else ": nothing found" if column == 0 else ": empty")
            write(axes, 0.5, 0.98, text, size=12, ha="center", va="top")
            for a, letter in zip((0.03, 0.97), letters, strict=True):
                write(axes, a, 0.5, letter, color=FAINT, size=12, ha="center")
            scale_bar(axes, width)
    return figure


def surface_field(mask: np.ndarray, spacing: Spacing, grid_mm: float) -> np.ndarray:
    """Smooth a mask (z, y, x) on a cubic grid of grid_mm; its surface is level 0.5."""
    edges = [int(np.ceil(EDGE_MM / step)) for step in spacing]
    wide = np.pad(mask, [(edge, edge) for edge in edges]).astype(np.float32)
    shape = [round((n * step + 2 * EDGE_MM) / grid_mm) for n, step in zip(mask.shape, spacing, strict=True)]
    # Centers of the cubic grid in voxels of the padded mask.
    scale = [grid_mm / step for step in spacing]
    shift = [edge - (EDGE_MM - grid_mm / 2) / step - 0.5 for edge, step in zip(edges, spacing, strict=True)]
    field = ndimage.affine_transform(wide, scale, offset=shift, output_shape=shape, order=1)
    # Thick slices need more smoothing along z, or they show as steps.
    return ndimage.gaussian_filter(field, [max(0.8, 0.45 * step / grid_mm) for step in spacing])


def render(fields: dict[str, np.ndarray], *, behind: bool, hues: Mapping[str, str] = COLORS) -> np.ndarray:
    """Render smooth fields (z, y, x) along y as lit surfaces at level 0.5: (z, x, 3), orthographic.

    The kidney is translucent, more so where it faces the viewer, so that a tumor or cyst inside it shows.
    """
    from matplotlib.colors import to_rgb

    depths, colors, opacities = [], [], []
    for name, field in fields.items():
        depth, facing, light, coverage = _first_surface(field[:, ::-1, ::-1] if behind else field)
        gloss = 0.3 * (light**25)[..., None]
        color = np.array(to_rgb(hues[name])) * (0.5 + 0.65 * light)[..., None]
        opacity = coverage * (0.45 + 0.5 * (1 - facing) ** 1.5 if name == "kidney" else 1.0)
        depths.append(depth)
        colors.append((color * (1 - gloss) + gloss).clip(0, 1))
        opacities.append(opacity[..., None])
    picture = np.array(to_rgb(PAPER))
    order = np.argsort(-np.stack(depths), axis=0, kind="stable")[..., None]  # at each pixel the farthest first
    layers = np.stack(colors), np.stack(opacities)
    for place in order:
        color, opacity = (np.take_along_axis(layer, place[None], axis=0)[0] for layer in layers)
        picture = picture * (1 - opacity) + color * opacity
    return picture


def _first_surface(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find where rays along y first meet level 0.5.

    Returns:
        depth in voxels (inf: never), and 0 to 1 how much it faces the viewer, is lit, and covers its pixel.
    """
    level = 0.5
    hit = (field >= level).argmax(axis=1)
    z, x = np.ogrid[: field.shape[0], : field.shape[2]]
    coverage = ((field.max(axis=1) - level) / 0.3 + 0.5).clip(0, 1)  # a soft silhouette
    closest = field.argmax(axis=1)
    met = field[z, hit, x] >= level
    hit = np.where(met, hit, closest)
    before, at = field[z, np.maximum(hit - 1, 0), x], field[z, hit, x]
    depth = np.where(met, hit - (at - level) / np.maximum(at - before, 1e-6), np.where(coverage > 0, closest, np.inf))
    place = np.stack([np.broadcast_to(z, hit.shape), np.where(np.isfinite(depth), depth, 0), np.broadcast_to(x, hit.shape)])

    def sample(step: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(field, place + step[:, None, None], order=1, mode="nearest")

    normal = np.stack([sample(-step) - sample(step) for step in np.eye(3)])  # the field falls outward
    normal /= np.linalg.norm(normal, axis=0) + 1e-6
    lamp = np.array([0.5, -0.75, -0.43])  # from above, in front and the left of the picture
    light = np.tensordot(lamp / np.linalg.norm(lamp), normal, 1)
    return depth, (-normal[1]).clip(0, 1), light.clip(0, 1), coverage
