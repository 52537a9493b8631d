"""Schemas of the commands beside kits.train: conf/prepare.yaml, conf/predict.yaml and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from kits.config.schema.base import Count, Index, Length, Options, OutputFolder, PathText, Share, Switch, Text, check_output
from kits.config.schema.benches import BENCHES
from kits.config.schema.dataset import Data, SplitOptions
from kits.config.schema.evaluation import Bootstrap, Measures
from kits.config.schema.model import Model
from kits.config.schema.phantoms import Phantom
from kits.config.schema.workflow import Crossval, Pipeline
from kits.core.errors import KitsError

CaseIds = Index | Text | list[Index | Text]
Backend = Literal["auto", "torch", "onnx"]
PredictPrecision = Literal["auto", "bf16", 32, 16]
Subset = Literal["train", "validation", "all"]
Saved = Literal["labels", "own_ids", "seg_nrrd", "color_table", "probabilities", "uncertainty"]


def a_label_map_or_a_folder(value: str) -> str:
    """Refuse another file, and a label map below one."""
    check_output("output", str(Path(value).parent) if value.endswith(".nii.gz") else value)
    return value


class Prepare(Options):
    """conf/prepare.yaml."""

    data: Data
    split: SplitOptions


class Predict(Options):
    """conf/predict.yaml."""

    coarse: PathText | list[PathText] | None
    fine: PathText | list[PathText] | None
    input: PathText
    output: Annotated[PathText, AfterValidator(a_label_map_or_a_folder)]
    cases: CaseIds | None
    split_file: PathText | None
    subset: Subset
    fold: Index | None
    save: Saved | Annotated[list[Saved], Field(min_length=1)]
    dicom_seg: Switch
    submission: Switch
    measure: Switch
    overwrite: Switch
    allow_implausible: Switch
    backend: Backend
    device: Text
    mirror: Switch | None
    precision: PredictPrecision
    window: Count | None
    slices_at_once: Count | None
    margin_mm: Length | None
    min_component_ml: Length | None
    tumor_confidence: Share | None
    shard: Index | None
    shards: Count | None


class Boxes(Options):
    """conf/boxes.yaml."""

    coarse: PathText | list[PathText]
    input: PathText
    output: OutputFolder
    cases: CaseIds | None
    backend: Backend
    device: Text
    precision: PredictPrecision


class Evaluate(Options):
    """conf/evaluate.yaml."""

    data: Data
    measures: Measures
    prediction: PathText
    truth: PathText
    output: OutputFolder
    cases: CaseIds | None
    split_file: PathText | None
    subset: Subset
    fold: Index | None
    workers: Count
    bootstrap: Bootstrap


class Report(Options):
    """conf/report.yaml."""

    data: Data
    image: PathText
    prediction: PathText
    output: OutputFolder
    format: Literal["html", "png"]
    truth: PathText | None
    cases: CaseIds | None
    workers: Count


class LabelIds(Options):
    """The label ids that stand for each class."""

    kidney: list[Index]
    tumor: list[Index]
    cyst: list[Index]

    @model_validator(mode="after")
    def _each_once(self) -> LabelIds:
        """Refuse an id with two meanings, the background's, and what a label map's byte cannot hold."""
        numbers = [*self.kidney, *self.tumor, *self.cyst]
        if len(set(numbers)) < len(numbers) or any(not 0 < number < 256 for number in numbers):
            raise KitsError(f"ids={self.model_dump()}: give each class ids from 1 to 255, no id twice")
        return self


class Measure(Options):
    """conf/measure.yaml."""

    data: Data
    input: PathText
    image: PathText | None
    members: list[PathText]
    ids: LabelIds
    coarse: PathText | list[PathText] | None
    fine: PathText | list[PathText] | None
    predict: dict[str, Any]
    output: OutputFolder
    cases: CaseIds | None
    pages: Switch
    dicom_sr: Switch
    overwrite: Switch
    workers: Count


class Convert(Options):
    """conf/convert.yaml."""

    data: Data
    root: PathText
    output: OutputFolder


class Download(Options):
    """conf/download.yaml."""

    output: OutputFolder
    cases: CaseIds | None
    imaging: Switch
    workers: Count
    hub_endpoint: Text
    hub_repo: Text
    hub_revision: Text
    labels_url: Text
    records: Text
    all_cases: CaseIds
    labeled_cases: CaseIds
    retries: Index


class Export(Options):
    """conf/export.yaml."""

    coarse: PathText | list[PathText] | None
    fine: PathText | list[PathText] | None
    output: OutputFolder
    format: Literal["onnx", "safetensors", "bundle", "shipped"]
    card: PathText | None
    scan: PathText | None

    @model_validator(mode="after")
    def _enough(self) -> Export:
        """Refuse to export nothing, or half a bundle."""
        if self.coarse is None and self.fine is None:
            raise KitsError("coarse, fine: no checkpoint given; add coarse=CKPT, fine=CKPT or both")
        if self.format == "bundle" and None in (self.coarse, self.fine):
            raise KitsError("format=bundle: MONAI's runner segments with both stages; give coarse=CKPT and fine=CKPT")
        if self.format == "shipped":
            for key in ("coarse", "fine", "card", "scan"):
                if getattr(self, key) is None:
                    raise KitsError(f"{key}: no value given; format=shipped takes coarse=CKPT fine=CKPT card=FILE.md scan=CT")
        elif not all(isinstance(one, str | None) for one in (self.coarse, self.fine)):
            raise KitsError(f"format={self.format}: of one checkpoint a stage; format=shipped averages several")
        return self


class ShowModel(Options):
    """conf/show_model.yaml."""

    folder: PathText | None


class Dashboard(Options):
    """conf/dashboard.yaml; its other keys are a training's, whose names it shows."""

    model_config = ConfigDict(extra="ignore")

    data: Data
    model: Model
    project: Text
    entity: Text | None
    name: Text
    terms: list[Text]
    parameters: list[Text]
    offline: Switch
    specification: PathText
    timeout_s: Count


class Submission(Options):
    """conf/submission.yaml."""

    predictions: PathText | None
    zip: PathText | None
    images: PathText | None


COMMANDS: dict[str, type[Options]] = {
    "prepare": Prepare,
    "predict": Predict,
    "boxes": Boxes,
    "evaluate": Evaluate,
    "report": Report,
    "measure": Measure,
    "convert": Convert,
    "download": Download,
    "phantom": Phantom,
    "export": Export,
    "show_model": ShowModel,
    "submission": Submission,
    "dashboard": Dashboard,
    "pipeline": Pipeline,
    "crossval": Crossval,
    **BENCHES,
}
