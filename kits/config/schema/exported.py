"""Schemas of a prediction: what a file of weights says of itself, and what may be changed of that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kits.config.schema.base import Count, Index, Length, Options, Positive, Share, Switch, Text, Window
from kits.config.schema.dataset import Classes, RegionIds, check_outputs
from kits.config.schema.model import Model
from kits.config.schema.stage import CoarseInference, CoarseRoi, FineInference, FineRoi, Postprocess


class Graph(Options):
    """Facts of the graph that prediction must know."""

    classes: Count
    in_plane_multiple: Annotated[Count, Field(le=1024)]
    fixed_size: Switch
    sources: Index
    reach: Index | None


class CoarseData(Options):
    """The way from a scan to the coarse network's input."""

    window_hu: Window
    coarse_size: Count
    coarse_z_mm: Positive | None
    label_name: Text
    labels: RegionIds | None


class FineData(Options):
    """The way from a scan to the fine network's input."""

    window_hu: Window
    classes: Classes
    labels: RegionIds | None


class ParentCases(Options):
    """Cases of the run whose weights a training began with (`init=`)."""

    trained_on: list[Text]


class ExportedOptions(Options):
    """Options of both stages.

    Attributes:
        trained_on, parent: None where the file does not say.
        model: what builds the network; None in an ONNX file, which is one.
    """

    kits_format: Count
    trained_on: list[Text] | None = None
    parent: ParentCases | None = None
    model: Model | None = None
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

    @model_validator(mode="after")
    def _classes_are_the_networks(self) -> ExportedFine:
        """Refuse names of classes that the network does not give."""
        check_outputs(self.network.classes, self.data.classes)
        return self


Exported = Annotated[ExportedCoarse | ExportedFine, Field(discriminator="stage")]


class SegmenterOptions(Options):
    """Options of a `kits.inference.segmenter.Segmenter`; None is as the checkpoints say.

    Attributes:
        precision: 32, bf16 or 16, the halves in autocast; auto is the fastest on the device.
        mirror: read everything with left and right exchanged too and average: twice the work.
        window: slices that a fine network sees at once; fewer need less memory and show it less context.
        slices_at_once: slices that pass an encoder in one go; fewer need less memory, and the result is the same.
        margin_mm: around each ROI of the coarse stage.
        min_component_ml: smaller components of the result go.
        tumor_confidence: regions of tumor of a lower mean probability become what is next most probable there.
        outputs: beside the labels; all of them inside the ROIs only.
        allow_implausible: a volume whose numbers cannot be HU is a warning and not an error.
    """

    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    mirror: Switch | None = None
    window: Count | None = None
    slices_at_once: Count | None = None
    margin_mm: Length | None = None
    min_component_ml: Length | None = None
    tumor_confidence: Share | None = None
    outputs: tuple[Literal["probabilities", "uncertainty", "sources"], ...] = ()
    allow_implausible: Switch = True
