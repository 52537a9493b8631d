"""Label ids of KiTS19 and the regions that it scores."""

BACKGROUND, KIDNEY, TUMOR = 0, 1, 2
CLASSES = ("background", "kidney", "tumor")

# KiTS19 scores "kidney" as label > 0 (kidney and tumor together) and "tumor" as label > 1 (Heller et al., arXiv 1904.00445).
REGIONS: dict[str, tuple[int, ...]] = {"kidney": (KIDNEY, TUMOR), "tumor": (TUMOR,)}
