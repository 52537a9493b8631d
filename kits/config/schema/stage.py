"""The group `stage` without what it chooses from other groups: conf/stage/*.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from kits.config.schema.base import Count, Fraction, Index, Inside, Length, Options, Positive, Share, Switch, Triple
from kits.core.errors import KitsError


class SamplingOptions(Options):
    """Patches of a training."""

    patch: Triple
    batch_size: Count
    patches_per_epoch: Count


class CoarseSampling(SamplingOptions):
    """Windows of the coarse grid; the share `foreground` is centred on a kidney slice."""

    foreground: Share


class FineSampling(SamplingOptions):
    """Patches inside ROIs, see conf/stage/fine.yaml."""

    tumor: Share
    kidney: Share
    jitter_mm: Length
    around: Share
    around_mm: Length

    @model_validator(mode="after")
    def _shares_fit(self) -> FineSampling:
        """Refuse shares that leave no room for one another."""
        if self.tumor + self.kidney > 1:
            raise KitsError(
                f"sampling.tumor={self.tumor:g}, sampling.kidney={self.kidney:g}:"
                " together more than all patches; give shares that add up to 1 at most"
            )
        return self


class Inference(Options):
    """The window that a network sees at once, in slices, and the share of it that the next one repeats."""

    window: Count
    overlap: Fraction


class FineInference(Inference):
    """And what else a fine network is asked to do."""

    pixel_mm: Positive | None
    mirror: Switch
    tumor_confidence: Share | None


class CoarseInference(Inference):
    """And the probability from which a voxel counts."""

    threshold: Inside


class CoarseRoi(Options):
    """The rule from a coarse mask to ROIs, see `kits.volume.rois.find_rois`."""

    count: Count
    min_voxels: Index
    min_ml: Length | None
    margin_mm: Length
    rank: Literal["size", "kidney"]


class FineRoi(Options):
    """The growth of ROIs where the result touches a face."""

    margin_mm: Length
    grow_mm: Length
    grow_rounds: Index


class Postprocess(Options):
    """Steps of the clean-up after the fine stage, see `kits.volume.postprocess`."""

    components: Count | None
    tumor_distance_mm: Length | None
    min_ml: Length | None
    fill_holes: Switch
