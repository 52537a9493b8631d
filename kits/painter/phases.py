"""Contrast phases: the HU of every tissue, drawn anew for each case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PHASES = ("none", "corticomedullary", "portal", "nephrographic", "excretory")

# tissue: lowest and highest mean HU in the order of PHASES. Ranges as commonly reported for 120 kVp, widened.
RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "aorta": ((32, 52), (210, 420), (120, 190), (100, 150), (80, 130)),
    "cava": ((30, 50), (50, 170), (90, 180), (95, 150), (80, 125)),
    "renal_vein": ((30, 50), (110, 220), (110, 190), (95, 150), (80, 125)),
    "portal_vein": ((32, 50), (70, 160), (130, 210), (100, 150), (80, 125)),
    "liver": ((35, 66), (50, 95), (85, 130), (80, 118), (70, 105)),
    "spleen": ((38, 55), (85, 160), (100, 140), (90, 120), (75, 108)),
    "pancreas": ((25, 50), (75, 130), (70, 115), (60, 95), (50, 85)),
    "muscle": ((38, 62), (45, 72), (48, 76), (48, 76), (45, 72)),
    "bowel_wall": ((25, 50), (60, 120), (65, 115), (60, 100), (50, 85)),
    "cortex": ((24, 42), (115, 250), (145, 230), (120, 210), (90, 165)),
    "medulla": ((24, 42), (35, 115), (95, 200), (115, 205), (85, 165)),
    "collecting": ((0, 14), (0, 16), (2, 25), (5, 150), (150, 900)),
    "adrenal": ((15, 40), (50, 95), (55, 95), (45, 85), (40, 75)),
}


@dataclass(frozen=True)
class Contrast:
    """Mean HU of each tissue of `RANGES` in one patient, and the name of the phase."""

    phase: str
    hu: dict[str, float]

    def __getitem__(self, tissue: str) -> float:
        return self.hu[tissue]


def draw_contrast(rng: np.random.Generator, weights: dict[str, float]) -> Contrast:
    """Draw a phase by its weight (any positive scale) and, inside its ranges, the HU of every tissue."""
    share = np.array([weights[name] for name in PHASES], float)
    index = int(rng.choice(len(PHASES), p=share / share.sum()))
    hu = {tissue: float(rng.uniform(*ranges[index])) for tissue, ranges in RANGES.items()}
    if PHASES[index] == "nephrographic":
        hu["medulla"] = hu["cortex"] + float(rng.normal(0, 8))
    if PHASES[index] == "none":
        hu["medulla"] = hu["cortex"] + float(rng.normal(0, 3))
    if PHASES[index] == "portal":
        hu["medulla"] = min(hu["medulla"], hu["cortex"] + 5)
    return Contrast(PHASES[index], hu)
