"""All figures of one case, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, isfinite

import numpy as np

from kits.config.schema.evaluation import Measures
from kits.core.labels import HIERARCHICAL_REGIONS, Regions
from kits.metrics.detection import Component, components
from kits.metrics.overlap import difference_percent, score_case, score_names, volumes_ml
from kits.metrics.surface import compare_surfaces, hausdorff_of_voxels
from kits.volume import Spacing
from kits.volume.windows import common_window

TUMOR_REGION = "tumor"
HD95 = {
    "surfels": "the larger of the two directed 95th percentiles over surface elements by area (DeepMind's surface-distance)",
    "voxels": "the larger of the two directed 95th percentiles over border voxels, interpolated (MONAI's)",
}
COUNTS = {
    "tumors": "tumors of the truth",
    "tumors_found": "those of them that the prediction found",
    "tumors_predicted": "tumors of the prediction",
    "tumors_right": "those of them that lie on a tumor of the truth",
}


@dataclass(frozen=True)
class Column:
    """A figure of a case: unit, meaning, and value without a usable prediction (None: an empty one's)."""

    unit: str
    meaning: str
    missing: float | None = None


@dataclass(frozen=True)
class CaseFigures:
    """One case's figures by column, and its tumors on either side."""

    values: dict[str, float]
    true_tumors: list[Component]
    predicted_tumors: list[Component]

    @property
    def counts(self) -> dict[str, int]:
        """The tumors, by the names of `COUNTS`."""
        true, predicted = self.true_tumors, self.predicted_tumors
        numbers = len(true), sum(one.matched for one in true), len(predicted), sum(one.matched for one in predicted)
        return dict(zip(COUNTS, numbers, strict=True))


def columns(regions: Regions, measures: Measures) -> dict[str, Column]:
    """List every figure of a case in the order of a table's columns."""
    found = {name: Column("1", f"Dice of {name}", 0.0) for name in score_names(regions)}
    found["composite"] = Column("1", "mean Dice of kidney and tumor (KiTS19's rank)", 0.0)
    hierarchical = set(HIERARCHICAL_REGIONS) <= set(regions)
    if hierarchical:
        found["hec"] = Column("1", f"mean Dice of {', '.join(HIERARCHICAL_REGIONS)} (KiTS21's and KiTS23's)", 0.0)
    for region in regions:
        if region in measures.tolerances_mm:
            meaning = f"surface Dice of {region} at {measures.tolerances_mm[region]} mm; both empty 1, one empty 0"
            found[f"{region}_surface_dice"] = Column("1", meaning, 0.0)
    if hierarchical and set(HIERARCHICAL_REGIONS) <= set(measures.tolerances_mm):
        found["hec_surface_dice"] = Column("1", f"mean surface Dice of {', '.join(HIERARCHICAL_REGIONS)}", 0.0)
    for region in regions:
        meaning = f"{HD95[measures.hd95]}; both empty 0, one empty or no prediction the diagonal of the scan's field of view"
        found[f"{region}_hd95_mm"] = Column("mm", f"HD95 of {region}: {meaning}", float("inf"))
    for region in regions:
        found[f"{region}_ml"] = Column("mL", f"volume of {region} in the truth")
        found[f"{region}_predicted_ml"] = Column("mL", f"volume of {region} in the prediction")
        found[f"{region}_difference_ml"] = Column("mL", f"predicted less true volume of {region}")
        meaning = f"that in percent of the true volume of {region}; both empty 0, none where only the truth is empty"
        found[f"{region}_difference_percent"] = Column("%", meaning)
    return found


def measure_case(
    prediction: np.ndarray | None, truth: np.ndarray, spacing: Spacing, regions: Regions, measures: Measures
) -> CaseFigures:
    """Measure everything of one case.

    Args:
        prediction: uint8 labels (z, y, x); None counts as an empty one that has every score's worst.
        truth: uint8 labels of the same shape.
        spacing: of the truth, (z, y, x) mm.

    Raises:
        KitsError: the two differ in size.
    """
    diagonal = hypot(*(count * step for count, step in zip(truth.shape, spacing, strict=True)))
    # A view of one voxel: an empty prediction takes no memory.
    found = np.broadcast_to(np.uint8(0), truth.shape) if prediction is None else prediction
    values = score_case(found, truth, regions)
    window = common_window(found, truth) or (slice(0),) * 3
    found, true = np.ascontiguousarray(found[window]), np.ascontiguousarray(truth[window])
    predicted_ml, true_ml = (volumes_ml(labels, spacing, regions) for labels in (found, true))
    for region, labels in regions.items():
        masks = [np.isin(array, labels) for array in (found, true)]
        surfaces = compare_surfaces(masks[0], masks[1], spacing)
        if region in measures.tolerances_mm:
            values[f"{region}_surface_dice"] = surfaces.dice(measures.tolerances_mm[region])
        by_area = measures.hd95 == "surfels"
        values[f"{region}_hd95_mm"] = surfaces.hausdorff() if by_area else hausdorff_of_voxels(masks[0], masks[1], spacing)
        values[f"{region}_ml"], values[f"{region}_predicted_ml"] = true_ml[region], predicted_ml[region]
        values[f"{region}_difference_ml"] = predicted_ml[region] - true_ml[region]
        values[f"{region}_difference_percent"] = difference_percent(predicted_ml[region], true_ml[region])
    for mean, suffix in (("hec", ""), ("hec_surface_dice", "_surface_dice")):
        values[mean] = float(np.mean([values.get(f"{region}{suffix}", np.nan) for region in HIERARCHICAL_REGIONS]))
    documented = columns(regions, measures)
    if prediction is None:
        values |= {name: column.missing for name, column in documented.items() if column.missing is not None}
    farthest = {name: diagonal for name in documented if name.endswith("_hd95_mm") and not isfinite(values[name])}
    values = {name: {**values, **farthest}[name] for name in documented}
    rule = {"overlap": measures.overlap, "least_mm": measures.least_mm}
    predicted, real = (np.isin(labels, regions[TUMOR_REGION]) for labels in (found, true))
    return CaseFigures(values, components(real, predicted, spacing, **rule), components(predicted, real, spacing, **rule))
