"""Parts that the pictures of a case share: arrays, headings, windows, and marks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kits.core.labels import CYST, KIDNEY, TUMOR, Regions, regions_of
from kits.io import whole_file
from kits.metrics import volumes_ml
from kits.volume import Spacing
from kits.volume.windows import Window, common_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {KIDNEY: "kidney", TUMOR: "tumor", CYST: "cyst"}
COLORS = {"kidney": "#36b4ff", "tumor": "#ff4f42", "cyst": "#b58cff"}
TRUTH_COLORS = {"kidney": "#c8ff4d", "tumor": "#ffd21f", "cyst": "#ff9ade"}
INK, FAINT, PAPER = "#e8e8e8", "#a8aeb4", "#101214"


@dataclass(frozen=True)
class Scene:
    """The content of a picture.

    Attributes:
        name: the case.
        hu: (z, y, x) CT in HU.
        prediction: (z, y, x) uint8 labels.
        truth: (z, y, x) uint8 labels, or None.
        spacing: (z, y, x) mm.
        scores: `kidney`, `tumor` and `composite` Dice, `cyst` where there are any, or empty.
    """

    name: str
    hu: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    spacing: Spacing
    scores: dict[str, float]

    @property
    def maps(self) -> list[np.ndarray]:
        """The prediction and, where there is one, the truth."""
        return [self.prediction] if self.truth is None else [self.prediction, self.truth]

    @cached_property
    def names(self) -> dict[int, str]:
        """Names by label of what is drawn: kidney and tumor, and the cyst where a map has one."""
        cysts = any((labels == CYST).any() for labels in self.maps)
        return {label: name for label, name in NAMES.items() if label != CYST or cysts}

    @property
    def regions(self) -> Regions:
        """The regions of these names: the kidney's holds its tumors and cysts."""
        return regions_of(list(self.names.values()))

    @property
    def headings(self) -> list[str]:
        """Name and volumes in mL (or that nothing was found), and the scores where there are any."""
        found = "nothing found"
        if self.prediction.any():
            volumes = volumes_ml(self.prediction, self.spacing, self.regions)
            found = ",   ".join(f"{name} {volume:.1f} mL" for name, volume in volumes.items())
        dice = ",   ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
        return [f"{self.name}:   {found}", *([f"Dice:   {dice}"] if dice else [])]

    @cached_property
    def marked(self) -> Window | None:
        """The window that holds all that the prediction and the truth mark; None where that is nothing."""
        return common_window(*self.maps)

    def clip(self, limits: Iterable[tuple[int, int]]) -> Window:
        """Return limits (low, high) along z, y and x as a window of the volume."""
        z, y, x = (slice(max(0, low), min(n, high)) for (low, high), n in zip(limits, self.hu.shape, strict=True))
        return z, y, x


def length(part: slice) -> int:
    """Return voxels of a slice."""
    return int(part.stop - part.start)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG: complete under its name, or not there at all."""
    with whole_file(path, ".png") as temporary:
        figure.savefig(temporary, facecolor=PAPER)


def write(axes: Axes, x: float, y: float, text: str, *, color: str = INK, size: float = 10, **style: Any) -> None:
    """Write text at a place of the axes (0 to 1), with a dark rim for bright anatomy."""
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=2.5, foreground=PAPER)]
    axes.text(x, y, text, color=color, fontsize=size, transform=axes.transAxes, path_effects=rim, **style)


def scale_bar(axes: Axes, width_mm: float) -> None:
    """Draw a bar of 5 cm at the lower right of axes that are `width_mm` wide."""
    end = 0.97
    start = end - 50.0 / width_mm
    axes.plot([start, end], [0.03, 0.03], color=INK, linewidth=2, transform=axes.transAxes, solid_capstyle="butt")
    write(axes, (start + end) / 2, 0.04, "5 cm", size=8, ha="center", va="bottom")
