"""Schema of an exported file: the configuration that prediction reads, and facts of the graph."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kits.config.schema.base import Count, Index, Options, Positive, Switch, Text, Window
from kits.config.schema.dataset import RegionIds
from kits.config.schema.stage import CoarseInference, CoarseRoi, FineInference, FineRoi, Postprocess


class Graph(Options):
    """Facts of the graph that prediction must know."""

    classes: Count
    in_plane_multiple: Annotated[Count, Field(le=1024)]
    fixed_size: Switch
    sources: Index
    reach: Index | None = None


class CoarseData(Options):
    """The way from a scan to the coarse network's input."""

    window_hu: Window
    coarse_size: Count
    coarse_z_mm: Positive | None
    label_name: Text
    labels: RegionIds | None = None


class FineData(Options):
    """The way from a scan to the fine network's input."""

    window_hu: Window
    classes: list[Text]
    labels: RegionIds | None = None


class ParentCases(Options):
    """Cases of the run whose weights a training began with (`init=`)."""

    trained_on: list[Text]


class ExportedOptions(Options):
    """Options of both stages; `trained_on` is None where the checkpoint does not say."""

    kits_format: Count
    trained_on: list[Text] | None
    parent: ParentCases | None = None
    network: Graph


class ExportedCoarse(ExportedOptions):
    """Options of the coarse stage."""

    stage: Literal["coarse"]
    data: CoarseData
    inference: CoarseInference
    roi: CoarseRoi


class ExportedFine(ExportedOptions):
    """Options of the fine stage."""

    stage: Literal["fine"]
    data: FineData
    inference: FineInference
    roi: FineRoi
    postprocess: Postprocess


Exported = Annotated[ExportedCoarse | ExportedFine, Field(discriminator="stage")]
