"""The records that a read-out returns: of a tumor, of a kidney, and of the whole case."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from kits.readout.cubes import Cubes
from kits.readout.diameters import Diameters
from kits.readout.intensities import Intensities
from kits.readout.kidneys import KidneyRegion
from kits.readout.nephrometry import PaduaScore, RenalScore
from kits.readout.outline import Outline
from kits.readout.sinus import Sinus


@dataclass(frozen=True)
class Range:
    """The least and the most that a value may be."""

    least: float
    most: float


@dataclass(frozen=True)
class TumorReading:
    """One tumor; lengths in mm, areas in mm2, volumes in mL, None where one was not measured.

    `flags` say why.
    """

    id: str
    side: str
    volume_ml: float
    integrated_ml: float
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
    renal: RenalScore
    padua: PaduaScore
    hu: Intensities | None = None
    flags: list[str] = field(default_factory=list)
    volume_interval_ml: Range | None = None
    axial_interval_mm: Range | None = None


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
    hu_parenchyma: Intensities | None = None
    hu_cyst: Intensities | None = None
    enhancement_hu: float | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shapes:
    """The shapes that a kidney's numbers were taken from, for pictures."""

    region: KidneyRegion
    cubes: Cubes
    sinus: Sinus
    outline: Outline | None
    diameters: list[Diameters]


@dataclass(frozen=True)
class CaseReading:
    """A whole case: its kidneys, its tumors, and what a reader must know of the map."""

    kidneys: list[KidneyReading]
    tumors: list[TumorReading]
    flags: list[str]
    shapes: list[Shapes] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain containers, without the shapes."""
        return {
            "kidneys": [asdict(kidney) for kidney in self.kidneys],
            "tumors": [asdict(tumor) for tumor in self.tumors],
            "flags": self.flags,
        }
