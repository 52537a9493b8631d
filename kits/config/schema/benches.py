"""Schemas of measurements, conf/bench_*.yaml and conf/demo.yaml.

Those that hold whole groups of a training have none.
"""

from __future__ import annotations

from typing import Any, Literal

from kits.config.schema.base import (
    Count,
    Length,
    Number,
    Options,
    OutputFolder,
    PathText,
    Positive,
    Seed,
    Share,
    Text,
    Triple,
    Window,
)
from kits.config.schema.dataset import Data
from kits.config.schema.evaluation import Measures
from kits.config.schema.loss import Loss

Millimeters = tuple[Positive, Positive, Positive]  # (z, y, x)
Range = tuple[Number, Number, Positive]  # lowest, highest (included), step


class Bar(Options):
    """A figure that a measurement must reach."""

    least: Positive | None = None
    most: Positive | None = None


class Demo(Options):
    """conf/demo.yaml."""

    output: OutputFolder
    kind: Text
    steps: list[Text]
    bars: dict[str, Bar]


class ShippedBench(Options):
    """conf/bench_shipped.yaml."""

    images: PathText
    output: OutputFolder
    steps: list[Literal["carry", "paint", "train", "gate", "export"]]
    workers: Count
    painting: dict[str, Text]
    every_phantom: Count
    prepare: Text
    times: dict[Literal["coarse", "fine"], Text]
    training: Text
    held_out: Text
    predict: Text
    without_contrast: list[Text]
    least_tumor_mm: Length
    card: PathText | None
    bars: dict[str, Bar]


class ThresholdBench(Options):
    """conf/bench_threshold.yaml."""

    root: PathText
    workers: Count
    grid_mm: Positive
    thresholds: Range
    band_edges: Range
    bars: dict[str, Bar]


class StartupBench(Options):
    """conf/bench_startup.yaml."""

    rounds: Count
    calls: dict[str, Text]
    bars: dict[str, Bar]


class EvaluateBench(Options):
    """conf/bench_evaluate.yaml."""

    data: Data
    measures: Measures
    root: PathText | None
    case: Text
    shape: Triple
    displacement_mm: Length
    seed: Seed
    memory_gib: Positive
    bars: dict[str, Bar]


class PeersBench(Options):
    """conf/bench_peers.yaml."""

    data: Data
    loss: Loss
    output: OutputFolder
    seeds: list[Seed]
    recipes: dict[Literal["coarse", "fine"], Text]
    peers: list[Literal["plain_conv_unet", "seg_res_net"]]
    budget: Positive | None
    patch: Triple
    foreground: Share
    optimizers: dict[str, dict[str, Any]]
    clip: Positive


class ReadoutBench(Options):
    """conf/bench_readout.yaml."""

    data: Data
    root: PathText | None
    organisers: PathText | None
    spacings: list[Millimeters]
    poses: Count
    radii_mm: Window
    large: Triple
    seed: Seed
    workers: Count
    bars: dict[str, Bar]


class ReadoutStudy(Options):
    """conf/bench_readout_study.yaml."""

    data: Data
    root: PathText
    output: OutputFolder
    every: Count
    workers: Count


BENCHES: dict[str, type[Options]] = {
    "demo": Demo,
    "bench_threshold": ThresholdBench,
    "bench_shipped": ShippedBench,
    "bench_startup": StartupBench,
    "bench_evaluate": EvaluateBench,
    "bench_peers": PeersBench,
    "bench_readout": ReadoutBench,
    "bench_readout_study": ReadoutStudy,
}
