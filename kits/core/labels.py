"""Label ids of the KiTS data sets, the regions that are scored, and which label stays where two meet."""

from collections.abc import Mapping, Sequence

from kits.core.errors import KitsError

BACKGROUND, KIDNEY, TUMOR, CYST = 0, 1, 2, 3
# In the order of their ids. KiTS19 has the first three, KiTS21 and KiTS23 have all: `data.classes` says so.
CLASSES = ("background", "kidney", "tumor", "cyst")
KITS19_CLASSES = CLASSES[:3]

# A region is the labels that it joins. Labels are not nested: a cyst (3) is no "more than tumor" (2).
Regions = Mapping[str, tuple[int, ...]]
# KiTS19 scores "kidney" as label > 0 and "tumor" as label > 1 (Heller et al., arXiv 1904.00445), and marks a cyst as kidney.
REGIONS: Regions = {"kidney": (KIDNEY, TUMOR, CYST), "tumor": (TUMOR,)}
CYST_REGION: Regions = {"cyst": (CYST,)}
# What KiTS21 and KiTS23 rank by, each inside the one before (KITS_HEC_LABEL_MAPPING in their kits21/configuration/labels.py).
HIERARCHICAL_REGIONS: Regions = {"kidney": (KIDNEY, TUMOR, CYST), "masses": (TUMOR, CYST), "tumor": (TUMOR,)}

# Of two labels for one voxel the later stays: KiTS21 and KiTS23 lay down kidneys, then cysts, then tumors
# (LABEL_AGGREGATION_ORDER in their kits21/configuration/labels.py).
PRECEDENCE = (BACKGROUND, KIDNEY, CYST, TUMOR)


def regions_of(classes: Sequence[str]) -> Regions:
    """Return KiTS19's regions and, where a data set with these classes tells cysts apart, theirs."""
    return {**REGIONS, **CYST_REGION} if CLASSES[CYST] in classes else REGIONS


def evaluated_regions(classes: Sequence[str]) -> Regions:
    """List what is scored against a truth with these classes; with cysts hierarchical classes too."""
    return {**HIERARCHICAL_REGIONS, **CYST_REGION} if CLASSES[CYST] in classes else REGIONS


def classes_by_id(regions: Mapping[str, Sequence[int]]) -> dict[int, int]:
    """Tell which class each id of a data set's label maps means.

    Args:
        regions: by name the ids in it, `data.labels`. Regions may hold one another as nnU-Net's do: an id in `kidney` and
            in `tumor` is tumor. `masses` are tumors and cysts together (KiTS23): what is in it and not in `tumor` is a cyst.

    Raises:
        KitsError: an id is called tumor and cyst, or none is called kidney.
    """
    kidneys, tumors, cysts, masses = (set(regions.get(name) or ()) for name in ("kidney", "tumor", "cyst", "masses"))
    if both := sorted(tumors & cysts):
        raise KitsError(f"data.labels: {both[0]} is a tumor's id and a cyst's; give each id one meaning")
    found = {BACKGROUND: BACKGROUND, **dict.fromkeys(kidneys, KIDNEY), **dict.fromkeys(cysts | masses, CYST)}
    found |= dict.fromkeys(tumors, TUMOR)
    if KIDNEY not in found.values():
        raise KitsError("data.labels: no id is left for kidney; give it the ids of what is neither tumor nor cyst too")
    return found
