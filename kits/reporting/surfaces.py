"""Surfaces of a label map: cast as rays for a picture, and as triangles in mm, few enough for a page.

Rays through the volume give exact depth order and soft outlines where thousands of translucent triangles would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from kits.reporting.scene import COLORS, FAINT, INK, PAPER, Scene, length, scale_bar, write
from kits.volume import Spacing
from kits.volume.windows import Window

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


MESH_MM = 2.0  # triangles of about this side: a kidney has some 6000
MOST_TRIANGLES = 20_000  # of one surface; a larger one gets larger triangles
MOST_VERTICES = 2**16  # that two bytes can number
LEVEL = 0.5  # of a field, on the surface
STEP_MM = 0.1  # of the stored coordinates


@dataclass(frozen=True)
class Mesh:
    """A closed surface.

    Attributes:
        vertices: (N, 3) float32 mm, x to the patient's left, y to the back, z to the head, from the volume's corner.
        triangles: (M, 3) numbers of vertices.
    """

    vertices: np.ndarray
    triangles: np.ndarray

    def packed(self) -> bytes:
        """Pack coordinates in `STEP_MM` and vertex numbers as differences, little-endian uint16.

        Neighbors in a mesh are neighbors in the list, so differences are small and compress to about a third.
        """
        steps = np.round(self.vertices / STEP_MM).astype(np.int64)
        differences = np.diff(steps, axis=0, prepend=np.zeros((1, 3), np.int64)).T, np.diff(self.triangles.ravel(), prepend=0)
        return b"".join((part % MOST_VERTICES).astype("<u2").tobytes() for part in differences)


def mesh_of(mask: np.ndarray, window: Window, spacing: Spacing) -> Mesh | None:
    """Find the surface of a mask; None where it is empty, or too small for the grid to meet it.

    Args:
        mask: bool (z, y, x), the part of a volume at `window`.
        spacing: (z, y, x) mm.
    """
    from skimage.measure import marching_cubes

    if not mask.any():
        return None
    volume_mm3 = float(np.prod([length(part) * step for part, step in zip(window, spacing, strict=True)]))
    grid_mm = max(MESH_MM, (volume_mm3 / 8e6) ** (1 / 3))
    field = surface_field(mask, spacing, grid_mm)
    if field.max() <= LEVEL:  # a speck between the points of this grid, or smoothed away
        grid_mm = min(spacing)
        field = surface_field(mask, spacing, grid_mm)
        if field.max() <= LEVEL:
            return None
    vertices, triangles, _, _ = marching_cubes(field, LEVEL, allow_degenerate=False)
    if len(triangles) > MOST_TRIANGLES:  # they are about as many as the grid's squares that the surface covers
        grid_mm *= 1.05 * (len(triangles) / MOST_TRIANGLES) ** 0.5
        vertices, triangles, _, _ = marching_cubes(surface_field(mask, spacing, grid_mm), LEVEL, allow_degenerate=False)
    corner = [part.start * step - EDGE_MM for part, step in zip(window, spacing, strict=True)]
    return Mesh(((vertices + 0.5) * grid_mm + corner)[:, ::-1].astype(np.float32), triangles)
