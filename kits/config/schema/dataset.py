"""The groups `data` and `split`: conf/data/*.yaml, conf/split/*.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kits.config.schema.augmentation import Augmentation
from kits.config.schema.base import Count, Index, Inside, Options, Positive, Switch, Text, Window


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


Split = Annotated[Paper | Folds, Field(discriminator="kind")]


class RoiRule(Options):
    """The paper's rule for the ROIs of label maps: the `count` largest regions of more than `min_voxels`."""

    count: Count
    min_voxels: Index


class Data(Options):
    """A data set, how it is prepared, and how its patches are read."""

    root: Text | None
    cache: Text
    label_name: Text
    classes: list[Text]
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
    boxes: Text | None
    overfit: Text | None
    split: Split | None
    augmentation: Augmentation
