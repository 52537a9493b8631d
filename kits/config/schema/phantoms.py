"""conf/phantom.yaml."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from kits.config.schema.base import (
    Count,
    Index,
    Length,
    Meaning,
    Number,
    Options,
    OutputFolder,
    PathText,
    Share,
    Text,
    Whole,
    not_descending,
    refuse,
)
from kits.core.errors import KitsError
from kits.core.labels import CYST, KIDNEY

AtMost20 = Annotated[Number, Field(ge=0.1, le=20)]
NARROWEST_MM = 250  # of 60 drawn bodies none has kidneys beyond it; of 230 mm two have, of 200 mm fourteen


Margins = Annotated[tuple[Length, Length], Meaning("[low, high], 0 <= low <= high mm", not_descending)]


class Variety(Options):
    """The frequency of hard cases, among drawn ones and those on given label maps."""

    drawn: Share
    labels: Share


class Phases(Options):
    """The frequency of each contrast phase."""

    none: Length
    corticomedullary: Length
    portal: Length
    nephrographic: Length
    excretory: Length

    @model_validator(mode="after")
    def _any(self) -> Phases:
        """Refuse weights that are all 0."""
        if not any(self.model_dump().values()):
            raise KitsError(f"phases: all weights are 0; give one of {', '.join(Phases.model_fields)} more")
        return self


Spacings = Annotated[tuple[AtMost20, AtMost20], Meaning("[low, high], 0.1 <= low <= high <= 20 mm", not_descending)]
Radius = Annotated[Number, Field(ge=0.1, le=100)]
Radii = Annotated[tuple[Radius, Radius], Meaning("[low, high], 0.1 <= low <= high <= 100 mm", not_descending)]
Thin = Annotated[Number, Field(gt=0, le=50)]


class Real(Options):
    """The ways in which cases made of a real CT differ from it."""

    tumors: Length
    cysts: Length
    bowel: Length
    cyst_label: Annotated[Whole, Meaning("1 or 3", lambda label: label in (KIDNEY, CYST))]
    rephased: Share
    regridded: Share
    size: Annotated[Number, Field(ge=0, le=0.3)]
    turn_degrees: Annotated[Number, Field(ge=0, le=45)]
    bend_mm: Annotated[Number, Field(ge=0, le=15)]
    margin_mm: Margins
    cropped: Share
    mirrored: Share
    filtered: Share
    noise_hu: Length


class Phantom(Options):
    """conf/phantom.yaml."""

    output: OutputFolder
    cases: Count | None
    seed: Index
    labels: PathText | None
    images: PathText | None
    only: list[Text] | None
    exclude: list[Text]
    variants: Count
    real: Real
    thin_mm: Annotated[tuple[Thin, Thin], Meaning("mm between slices and between pixels, as in thin_mm=[4,1.6]")] | None
    workers: Count
    spacing_z: Spacings
    spacing_xy: Spacings
    matrix: Annotated[int, Field(strict=True, ge=32)]
    tumor_radius: Radii
    margin_mm: Margins
    decoys: Share
    variety: Variety
    phases: Phases

    @model_validator(mode="after")
    def _cases_come_from_somewhere(self) -> Phantom:
        """Refuse drawn cases without a number, and a thinning of what is drawn."""
        if self.labels is None and self.images is None and self.cases is None:
            raise KitsError("cases: no number given; add cases=N (only with labels=DIR or images=DIR it may be left out)")
        if self.labels is not None and self.images is not None:
            raise refuse("images", self.images, f"paints into real CT, labels={self.labels} around label maps; give one of them")
        if self.labels is None and self.thin_mm is not None:
            raise refuse("thin_mm", self.thin_mm, "is for labels=DIR; drawn cases have spacing_z and spacing_xy")
        return self

    @model_validator(mode="after")
    def _two_kidneys_fit(self) -> Phantom:
        """Refuse drawn cases whose smallest field of view would cut the kidneys off."""
        field = self.matrix * self.spacing_xy[0]
        if self.labels is None and self.cases is not None and field < NARROWEST_MM:
            pixels = math.ceil(NARROWEST_MM / self.spacing_xy[0])
            what = f"pixels of {self.spacing_xy[0]} mm are {field:.0f} mm, two kidneys need {NARROWEST_MM}"
            raise refuse("matrix", self.matrix, f"{what}; give matrix={pixels} or a larger spacing_xy")
        return self
