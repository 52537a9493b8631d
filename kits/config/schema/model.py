"""The group `model`: conf/model/*.yaml.

The name of a network selects its schema, and only these names can be built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod, sqrt
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from kits.config.plug_ins import (
    ENCODERS,
    FUSIONS,
    MODELS,
    OPERATORS,
    PlugInFusion,
    PlugInNetwork,
    PlugInOperator,
    check_names,
    plug_ins,
)
from kits.config.schema.base import Count, Index, Meaning, Options, PerLevel, Positive, Switch, Text, Window, refuse, text
from kits.core.errors import KitsError

# timm's families of five scales, of which scale k has 1 / 2 ** (k + 1) of the image's pixels along a side. Of others only the
# network itself knows; it says so when it is built.
HALVING = (
    *("tf_efficientnet", "tf_efficientnetv2", "efficientnet", "efficientnetv2", "test_efficientnet"),
    *("resnet", "resnext", "mobilenetv2", "mobilenetv3", "tf_mobilenetv3"),
)
HALVING_SCALES = 5

Norm = Literal["none", "group"]
Input = Literal["replicate", "neighbors", "windows"]
Operator = Literal["p3d", "conv3d", "zconv", "tsm", "acs", "none"]
Fusion = Literal["concat", "gate", "mean"]
Plane = Literal["axial", "coronal", "sagittal"]
Scales = Annotated[list[Index], Field(min_length=1)]
Levels = Sequence[Sequence[int]]

# An axis is pooled where its spacing is within this of the finest axis: beyond it, pooling the others alone brings the spacings
# closer together.
POOLED = sqrt(2)
# An axis is mixed (kernel 3) where its spacing is within this of the finest axis (nnU-Net's rule, arXiv 1904.08128).
MIXED = 2.0


def halves(backbone: str) -> bool:
    """Tell whether a backbone is one of HALVING, by the family's name and a digit or underscore after it."""
    if backbone in plug_ins(ENCODERS):
        return False
    return any(backbone.startswith(family) and not backbone[len(family) : len(family) + 1].isalpha() for family in HALVING)


class Unet3dOptions(Options):
    """The coarse network; see `kits.models.unet3d.UNet3d`."""

    name: Literal["unet3d"]
    classes: Count
    width: Count | None
    depth: Count | None
    widths: Annotated[list[Count], Field(min_length=1)] | None
    spacing: tuple[Positive, Positive, Positive] | None
    widest: Count
    in_plane: Index | None
    strides: PerLevel | None
    kernels: PerLevel | None
    norm: Norm
    deep_supervision: Index

    @model_validator(mode="after")
    def _levels_agree(self) -> Unet3dOptions:
        """Refuse lists of levels that differ in length."""
        if self.widths is None and None in (self.width, self.depth):
            raise KitsError("model.width, model.depth: give both, or the list model.widths")
        for key, entries in (("strides", self.strides), ("kernels", self.kernels)):
            if entries is None and self.spacing is None:
                raise KitsError(f"model.spacing: no value given; model.{key}=null is chosen from it")
            if entries is not None and len(entries) != self.levels:
                known = "model.depth" if self.widths is None else "the length of model.widths"
                raise KitsError(
                    f"model.{key}: {len(entries)} entries for {self.levels} levels ({known}); give one (z, y, x) per level"
                )
        if any(size % 2 == 0 for kernel in self.kernels or () for size in kernel):
            raise refuse("model.kernels", self.kernels, "even sizes shift the image; give odd ones")
        check_supervision(self.deep_supervision, self.levels)
        return self

    @property
    def levels(self) -> int:
        """Levels of the network."""
        return int(self.depth or 0) if self.widths is None else len(self.widths)

    @property
    def pooling(self) -> tuple[Levels, Levels]:
        """Strides and kernels (z, y, x) of each level; those that are not given are chosen from the spacing."""
        strides, kernels = anisotropic_levels(self.spacing, self.levels, self.in_plane) if self.spacing else ([], [])
        return self.strides or strides, self.kernels or kernels

    @property
    def in_plane_multiple(self) -> int:
        """Divisor of the in-plane sizes that the network takes: its strides' product along each side."""
        strides, _ = self.pooling
        return math.lcm(*(prod(stride[axis] for stride in strides) for axis in (1, 2)))


def anisotropic_levels(spacing: Sequence[float], depth: int, in_plane: int | None = None) -> tuple[Levels, Levels]:
    """Choose strides and kernels (z, y, x) of `depth` levels for voxels of `spacing` (z, y, x) mm.

    The first `in_plane` levels mix no slices, whatever the spacing: where planes are large that costs most.
    """
    current = list(spacing)
    strides, kernels = [], []
    for _ in range(depth):
        finest = min(current)
        kernels.append([3 if step <= MIXED * finest else 1 for step in current])
        strides.append([2 if step <= POOLED * finest else 1 for step in current])
        current = [step * stride for step, stride in zip(current, strides[-1], strict=True)]
    flat = [[1, y, x] for _, y, x in kernels[: in_plane or 0]]
    return strides, [*flat, *kernels[len(flat) :]]


class SourceOptions(Options):
    """One pretrained 2D network of the fine stage; what it does not say itself is the fine network's own."""

    backbone: Text
    weights: Text | None
    input: Input | None = None
    window_hu: Window | None = None
    windows_hu: list[Window] | None = None
    plane: Plane | None = None
    out_indices: Scales | None = None


class FineNetOptions(Options):
    """The fine network; see `kits.models.finenet.FineNet`."""

    name: Literal["finenet"]
    classes: Count
    sources: Annotated[
        list[SourceOptions], Field(min_length=1), Meaning("at least one {backbone: NAME, weights: imagenet|hub|FILE|null}")
    ]
    input: Input
    window_hu: Window | None
    windows_hu: list[Window]
    data_window_hu: Window
    plane: Plane
    out_indices: Scales
    widths: Annotated[list[Count], Field(min_length=1)]
    operator: Operator | PlugInOperator
    gate: Switch
    norm: Norm
    fusion: Fusion | PlugInFusion
    width: Count
    stem_width: Count
    deep_supervision: Index
    freeze_statistics: Switch
    freeze_stages: Index | Literal["all"]
    slices_at_once: Count | None
    checkpointing: Switch

    @model_validator(mode="after")
    def _sources_can_be_built(self) -> FineNetOptions:
        """Refuse sources whose scales or windows do not fit."""
        check_names(OPERATORS, get_args(Operator))
        check_names(FUSIONS, get_args(Fusion))
        for source in self.sources:
            self._check_scales(source)
            self._check_windows(source)
            # Every family of HALVING has BatchNorm, whose statistics would be moved twice by slices that pass twice.
            learns = not self.freeze_statistics and self.freeze_stages != "all"
            if self.checkpointing and learns and halves(source.backbone):
                raise KitsError(
                    "model.checkpointing=true: every slice passes BatchNorm twice; give model.freeze_statistics=true too"
                )
        check_supervision(self.deep_supervision, len(self.widths))
        if self.freeze_stages != "all" and self.freeze_stages > len(self.widths):
            raise refuse("model.freeze_stages", self.freeze_stages, f"give 0 to {len(self.widths)}, or all")
        return self

    def of(self, source: SourceOptions, name: str) -> Any:
        """Return an option of a source: its own where it gives one (null is a window), else the network's."""
        own = getattr(source, name)
        given = name in source.model_fields_set and (own is not None or name == "window_hu")
        return own if given else getattr(self, name)

    def _check_scales(self, source: SourceOptions) -> None:
        scales = self.of(source, "out_indices")
        if list(scales) != sorted(set(scales)):
            raise refuse("model.out_indices", scales, "give the scales in ascending order, each once")
        if halves(source.backbone) and scales[-1] >= HALVING_SCALES:
            raise refuse("model.out_indices", scales, f"{source.backbone} has the scales 0 to {HALVING_SCALES - 1}")
        if len(scales) != len(self.widths):
            what = f"{len(self.widths)} widths for {len(scales)} scales, model.out_indices={text(scales)}"
            raise refuse("model.widths", self.widths, f"{what}; give one width per scale")

    def _check_windows(self, source: SourceOptions) -> None:
        """Refuse HU windows beyond the data's window: what was clipped cannot come back."""
        whole = self.data_window_hu
        kind, window, windows = (self.of(source, name) for name in ("input", "window_hu", "windows_hu"))
        if kind == "windows" and (window is not None or len(windows) != 3):
            raise KitsError("model.input=windows: it takes three windows in model.windows_hu, and model.window_hu=null")
        for low, high in windows if kind == "windows" else [window or whole]:
            if not whole[0] <= low < high <= whole[1]:
                inside = f"data.window_hu=[{whole[0]:g},{whole[1]:g}]"
                raise KitsError(f"model window [{low:g},{high:g}] HU: is not inside {inside}; choose another, or widen that")

    @property
    def in_plane_multiple(self) -> int:
        """Divisor of the in-plane sizes that all sources take; 1 for a source unknown here."""
        sizes = (2 ** (self.of(one, "out_indices")[-1] + 1) if halves(one.backbone) else 1 for one in self.sources)
        return math.lcm(*sizes)


def check_supervision(heads: int, levels: int) -> None:
    """Refuse heads for more coarser levels than there are."""
    if heads >= levels:
        raise KitsError(f"model.deep_supervision={heads}: give 0 to {levels - 1}, there are {levels} levels")


class OwnNetworkOptions(Options):
    """A plug-in's network, see `kits.models.own_network.OwnNetwork`; other keys are its arguments."""

    model_config = ConfigDict(extra="allow")

    name: Literal["own"]
    network: PlugInNetwork
    classes: Count
    in_plane_multiple: Count

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> OwnNetworkOptions:
        """Refuse a plug-in with the name of a network of ours."""
        check_names(MODELS, ("unet3d", "finenet", "own"))
        return self


Model = Annotated[Unet3dOptions | FineNetOptions | OwnNetworkOptions, Field(discriminator="name")]
