"""The groups `data` and `split`: conf/data/*.yaml, conf/split/*.yaml."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from kits.config.schema.augmentation import Augmentation
from kits.config.schema.base import Count, Index, Inside, Meaning, Options, PathText, Positive, Switch, Text, Window, refuse, text
from kits.core.errors import KitsError
from kits.core.labels import CLASSES, CYST, KITS19_CLASSES, classes_by_id


class Paper(Options):
    """One fixed validation set."""

    kind: Literal["paper"]
    seed: Index
    validation_cases: Count
    validation_fraction: Inside
    renew: Switch


class Folds(Options):
    """Cross-validation over `k` folds."""

    kind: Literal["folds"]
    seed: Index
    k: Annotated[int, Field(strict=True, ge=2)]
    renew: Switch


SplitOptions = Annotated[Paper | Folds, Field(discriminator="kind")]


class RoiRule(Options):
    """The paper's rule for the ROIs of label maps: the `count` largest regions of more than `min_voxels`."""

    count: Count
    min_voxels: Index


Id = Annotated[int, Field(strict=True, ge=1, le=255)]


# KiTS19's, or all of KiTS21 and KiTS23.
A_DATA_SET = Meaning(
    f"{text(KITS19_CLASSES)} or {text(CLASSES)}: label ids have a fixed meaning",
    lambda classes: tuple(classes) in (KITS19_CLASSES, CLASSES),
)
Classes = Annotated[list[Text], A_DATA_SET]


def check_outputs(outputs: int, classes: list[str]) -> None:
    """Refuse a network that has another number of classes than its data set."""
    if outputs != len(classes):
        what = f"the data set has {len(classes)} classes; leave the key out, it follows data.classes"
        raise refuse("model.classes", outputs, what)


def listed(value: Any) -> Any:
    """Take one id or name for a list of one."""
    return [value] if isinstance(value, int | str) and not isinstance(value, bool) else value


Ids = Annotated[list[Id], BeforeValidator(listed), Field(min_length=1), Meaning("an id from 1 to 255, or a list of them")]


class RegionIds(Options):
    """The ids that the files of a data set give each region; regions may hold one another, as nnU-Net's."""

    kidney: Ids
    tumor: Ids | None = None
    cyst: Ids | None = None
    masses: Ids | None = None

    @model_validator(mode="after")
    def _one_meaning_each(self) -> RegionIds:
        """Refuse an id with two meanings, and a map that leaves no kidney."""
        classes_by_id(self.ids)
        return self

    @property
    def ids(self) -> dict[str, list[int]]:
        """The regions that have ids."""
        return self.model_dump(exclude_none=True)


Names = Annotated[list[Text], BeforeValidator(listed), Field(min_length=1), Meaning("a name, or a list of names")]


class RoiNames(Options):
    """Names of ROIs and segments by class; capitals and blanks at the ends mean nothing."""

    kidney: Names | None = None
    tumor: Names | None = None
    cyst: Names | None = None

    @model_validator(mode="after")
    def _one_meaning_each(self) -> RoiNames:
        """Refuse a name of two classes."""
        names = [self._key(name) for given in self.model_dump(exclude_none=True).values() for name in given]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise KitsError(f"data.rois: {twice!r} stands there twice; give each name one meaning")
        return self

    def label_of(self, name: str) -> int | None:
        """Return the label of an ROI or segment of this name; None where nothing is said of it."""
        given = self.model_dump(exclude_none=True).items()
        return next((CLASSES.index(kind) for kind, names in given if self._key(name) in map(self._key, names)), None)

    def absent(self, names: Iterable[str]) -> list[str]:
        """List those of these names that none of `names` is."""
        known = {self._key(name) for name in names}
        given = (name for names in self.model_dump(exclude_none=True).values() for name in names)
        return [name for name in given if self._key(name) not in known]

    @staticmethod
    def _key(name: str) -> str:
        return name.strip().casefold()


class Data(Options):
    """A data set, how it is prepared, and how its patches are read."""

    root: PathText | None
    cache: PathText
    layout: Literal["kits", "nnunet", "msd", "bids", "pairs", "dicom"]
    images: PathText | None
    label_maps: PathText | None
    labels: RegionIds | None
    rois: RoiNames | None
    label_name: Text
    classes: Classes
    unlabeled_from: Index | None
    exclude: list[Text]
    train_cases: Count | None
    skip_invalid: Switch
    workers: Count
    loader_workers: Index | Literal["auto"]
    window_hu: Window
    coarse_size: Count
    coarse_z_mm: Positive | None
    roi_rule: RoiRule
    roi: Literal["gt_jitter", "oof"]
    boxes: PathText | None
    overfit: Text | None
    split: SplitOptions | None
    augmentation: Augmentation

    @property
    def ids(self) -> dict[int, int]:
        """Meaning of each id of the label maps: their own where `labels` says so, else KiTS's."""
        return classes_by_id(self.labels.ids) if self.labels else {label: label for label in range(len(self.classes))}

    @model_validator(mode="after")
    def _labels_are_classes(self) -> Data:
        """Refuse ids of cysts where the classes have none: KiTS19 counts a cyst as kidney."""
        if self.labels is not None and (self.labels.cyst or self.labels.masses) and CLASSES[CYST] not in self.classes:
            what = "data.classes has no cyst; give data.classes=[background,kidney,tumor,cyst], or name its ids among kidney's"
            raise KitsError(f"data.labels: has ids of cysts, and {what}")
        return self
