"""The group `measures`, and intervals of means: what kits.evaluate computes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from kits.config.schema.base import Count, Index, Inside, Length, Meaning, Options, Positive, Share
from kits.core.errors import KitsError
from kits.core.labels import CYST_REGION, HIERARCHICAL_REGIONS


class Measures(Options):
    """The group `measures`: what is measured of a case and how.

    Attributes:
        tolerances_mm: by region, of its surface Dice; a region without one has none.
        hd95: which definition.
        overlap: share of a tumor that the other side must cover to match it.
        least_mm: smaller tumors (diameter of the ball of their volume) are not counted.
        sizes_mm: diameters between the size classes.
    """

    tolerances_mm: dict[str, Length]
    hd95: Literal["surfels", "voxels"]
    overlap: Share
    least_mm: Length
    sizes_mm: Annotated[list[Positive], Meaning("ascending sizes, each once", lambda sizes: sizes == sorted(set(sizes)))]

    @model_validator(mode="after")
    def _regions_are_known(self) -> Measures:
        """Refuse regions that there are not."""
        known = {**HIERARCHICAL_REGIONS, **CYST_REGION}
        for region in self.tolerances_mm:
            if region not in known:
                raise KitsError(f"measures.tolerances_mm.{region}: no such region; take some of {', '.join(known)}")
        return self


class Bootstrap(Options):
    """Intervals of means over cases."""

    resamples: Count
    level: Inside
    seed: Index
