"""HU of kidney, tumor and cyst, and how much the kidney enhances against muscle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kits.readout.kidneys import LEFT, KidneyRegion
from kits.volume import Spacing

# Muscle without and with contrast, HU; what lies between these beside the spine behind a kidney is muscle.
MUSCLE_HU = (15.0, 110.0)
# Behind the kidney and toward the spine, mm, lie psoas, quadratus lumborum and the erectors of the spine.
BEHIND_MM, MEDIAL_MM = 50.0, 20.0
# Ours: less muscle, or a wider middle half, tells nothing.
LEAST_ML, WIDEST_HU = 5.0, 40.0


@dataclass(frozen=True)
class Intensities:
    """Mean, standard deviation and percentiles of a region, HU."""

    mean: float
    sd: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float

    @classmethod
    def of(cls, values: np.ndarray) -> Intensities | None:
        """Describe HU values; None where there are none."""
        if not values.size:
            return None
        return cls(float(values.mean()), float(values.std()), *map(float, np.percentile(values, (5, 25, 50, 75, 95))))


def muscle_hu(hu: np.ndarray, labels: np.ndarray, region: KidneyRegion, spacing: Spacing) -> float | None:
    """Find the median HU of the muscle behind a kidney; None where it cannot be told.

    Args:
        hu, labels: the whole scan and its label map (z, y, x).
    """
    z, y, x = region.window
    behind = slice(y.stop, min(hu.shape[1], y.stop + round(BEHIND_MM / spacing[1])))
    medial, half = round(MEDIAL_MM / spacing[2]), (x.stop - x.start) // 2
    beside = slice(max(0, x.start - medial), x.start + half) if region.side == LEFT else slice(x.stop - half, x.stop + medial)
    part = hu[z, behind, beside]
    candidates = (part >= MUSCLE_HU[0]) & (part <= MUSCLE_HU[1]) & (labels[z, behind, beside] == 0)
    # Edges of fat and bone pass through muscle's HU too: only what has muscle all around counts.
    candidates = ndimage.binary_erosion(candidates, np.ones((1, 3, 3)), iterations=2)
    values = part[candidates]
    if values.size * float(np.prod(spacing)) < LEAST_ML * 1000:
        return None
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle) if high - low <= WIDEST_HU else None
