"""Define the columns of the read-out, each with its unit; dotted names reach into a reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kits.readout.intervals import POSSIBLE, SURE, WIDE_DIAMETER, WIDE_VOLUME

TUMOR_COLUMNS: dict[str, tuple[str, str]] = {
    "id": (
        "",
        "side and number, a kidney's largest tumor first; a tumor is what 26-connected voxels join, from 0.1 mL on",
    ),
    "side": ("", "the patient's side"),
    "volume_ml": ("mL", "voxels times the volume of one, as everyone counts it"),
    "integrated_ml": (
        "mL",
        "areas of the slices, integrated to where they would end between slices: closer in thick ones; surfaces enclose this",
    ),
    "axial_mm": ("mm", "longest distance of two voxel centers in one axial slice, the largest over the slices (RECIST 1.1)"),
    "volume_interval_ml.least": ("mL", f"least over the members and the map, or of what has a tumor probability of {SURE}"),
    "volume_interval_ml.most": ("mL", f"most over the members and the map, or of what has a tumor probability of {POSSIBLE}"),
    "axial_interval_mm.least": (
        "mm",
        f"the same of axial_mm; flagged where the two differ by {WIDE_DIAMETER} of axial_mm or more",
    ),
    "axial_interval_mm.most": (
        "mm",
        f"the same of axial_mm; flagged also where the volume's differ by {WIDE_VOLUME} of volume_ml",
    ),
    "axial_slice": (
        "",
        "slice of that diameter from the feet on, the first is 0 as in 3D Slicer (1 in ITK-SNAP); a file may run down",
    ),
    "short_mm": ("mm", "width of the tumor across that diameter, in that slice, between voxel centers"),
    "diameter_3d_mm": ("mm", "longest distance of two voxel centers in space"),
    "sphericity": ("", "surface of the ball of this volume over the tumor's surface; 1 is a ball"),
    "exophytic_share": ("", "share of the volume outside of the outline that the kidney would have without its tumors, 0 to 1"),
    "contact_mm2": ("mm2", "area of the tumor's surface that touches parenchyma or cyst (contact surface area, Leslie 2015)"),
    "sinus_mm": ("mm", "distance from the tumor to the renal sinus, 0 where they touch"),
    "outline_mm": ("mm", "distance from the tumor to the kidney's outline, 0 where it reaches it"),
    "depth_mm": ("mm", "how far the tumor reaches inward from the outline"),
    "between_polar_lines": ("", "share of the volume between the axial slices in which the sinus first and last opens"),
    "face": (
        "",
        "of the plane through the kidney's center, its sinus and the patient's long axis",
    ),
    "medial": ("", "whether its center lies on the sinus's side of the kidney's center"),
    "c_index": ("", "distance of the tumor's center from the kidney's over the tumor's radius (Simmons 2010)"),
    "parenchyma_5mm_ml": ("mL", "parenchyma within 5 mm of the tumor: what a resection would take"),
    "parenchyma_10mm_ml": ("mL", "the same within 10 mm"),
    "renal.R.points": ("points", "R.E.N.A.L. radius (Kutikov and Uzzo 2009)"),
    "renal.E.points": ("points", "R.E.N.A.L. exophytic"),
    "renal.N.points": ("points", "R.E.N.A.L. nearness to the sinus, for the collecting system, which no label names"),
    "renal.A.value": ("", "R.E.N.A.L. face: a, p or x"),
    "renal.L.points": ("points", "R.E.N.A.L. location relative to the polar lines"),
    "renal.total": ("points", "R.E.N.A.L. sum and face; h is left to the reader"),
    "padua.at_least": ("points", "PADUA sum (Ficarra 2009) if the collecting system is not involved"),
    "padua.at_most": ("points", "PADUA sum if it is"),
    "hu.mean": ("HU", "mean of the tumor's voxels"),
    "hu.sd": ("HU", "standard deviation of the tumor's voxels"),
    "hu.p50": ("HU", "median of the tumor's voxels"),
    "flags": ("", "what a reader must know"),
}
KIDNEY_COLUMNS: dict[str, tuple[str, str]] = {
    "side": ("", "the patient's side"),
    "present": ("", "whether the label map has a kidney there"),
    "parenchyma_ml": ("mL", "voxels labelled kidney times the volume of one"),
    "cyst_ml": ("mL", "voxels labelled cyst times the volume of one"),
    "tumor_ml": ("mL", "voxels labelled tumor times the volume of one"),
    "share_of_parenchyma": ("", "of both kidneys' parenchyma, 0 to 1"),
    "length_mm": ("mm", "from pole to pole along the kidney's own long axis, tumors outside of its outline left out"),
    "sinus_ml": ("mL", "what the kidney's convex hull leaves free on the medial side, opened by 2.5 mm; not a label"),
    "hu_parenchyma.mean": ("HU", "mean of the parenchyma's voxels"),
    "hu_parenchyma.sd": ("HU", "standard deviation of the parenchyma's voxels"),
    "enhancement_hu": ("HU", "median of the parenchyma less that of the muscle behind it"),
    "flags": ("", "what a reader must know"),
}


# What a page calls a column; another one by its name without the unit.
TITLES = {
    "volume_ml": "volume, voxels counted",
    "integrated_ml": "volume, integrated",
    "axial_mm": "axial diameter",
    "axial_slice": "slice of the axial diameter",
    "short_mm": "short axis",
    "diameter_3d_mm": "diameter in space",
    "volume_interval_ml.least": "volume, least",
    "volume_interval_ml.most": "volume, most",
    "axial_interval_mm.least": "axial diameter, least",
    "axial_interval_mm.most": "axial diameter, most",
    "contact_mm2": "contact surface area",
    "sinus_mm": "distance to the sinus",
    "outline_mm": "distance to the outline",
    "depth_mm": "depth",
    "c_index": "C-index",
    "parenchyma_5mm_ml": "parenchyma within 5 mm",
    "parenchyma_10mm_ml": "parenchyma within 10 mm",
    "hu.mean": "HU, mean",
    "hu.sd": "HU, standard deviation",
    "hu.p50": "HU, median",
    "parenchyma_ml": "parenchyma",
    "cyst_ml": "cysts",
    "tumor_ml": "tumors",
    "share_of_parenchyma": "share of parenchyma",
    "length_mm": "length",
    "sinus_ml": "sinus",
    "hu_parenchyma.mean": "HU of parenchyma, mean",
    "hu_parenchyma.sd": "HU of parenchyma, standard deviation",
    "enhancement_hu": "enhancement",
}


def definitions() -> dict[str, Any]:
    """Collect every column with its unit and definition, the axes, and what the numbers are not for."""
    tables = {"tumors": TUMOR_COLUMNS, "kidneys": KIDNEY_COLUMNS}
    told: dict[str, Any] = {
        part: {name: {"unit": unit, "definition": text} for name, (unit, text) in columns.items()}
        for part, columns in tables.items()
    }
    return {**told, "axes": "z up, y to the back, x to the patient's left", "use": "research only, not a medical device"}


def column(entry: Mapping[str, Any], name: str) -> Any:
    """Look a column up in a reading: an empty text where there is no value, flags joined."""
    value: Any = entry
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return "" if value is None else value
