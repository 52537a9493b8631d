"""One scan file to file: time by phases beside nnU-Net's and SimpleITK's, and peak memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch
from torch import Tensor, nn

from kits.bench.data_parts import draw_scan
from kits.bench.nnunet import NnunetPredictor
from kits.bench.rates import measure_rates
from kits.bench.timing import in_fresh_process, in_turn, peak_gb, scratch_folder, seconds, upright
from kits.config.schema import parse
from kits.config.schema.exported import Exported
from kits.config.schema.model import Model
from kits.core.errors import KitsError
from kits.inference.coarse import Rois
from kits.inference.segmenter import Segmenter
from kits.io import read_volume, write_labels, write_volume
from kits.models import build_network
from kits.models.settings import FORMAT, settings_of
from kits.volume import Volume
from kits.volume.rois import Box


def measure_speed(config: dict[str, Any]) -> dict[str, float]:
    """Measure `overhead`, the networks' rates and, where nnU-Net is installed, `times_nnunet`.

    `overhead` is our time beside the networks over plain reading and writing. `config` is conf/bench_predict.yaml.
    """
    torch.set_num_threads(config["threads"])
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(config["threads"])
    scan = Path(config["scan"])
    with scratch_folder(config) as scratch:
        ours, theirs = scratch / "ours.nii.gz", scratch / "theirs.nii.gz"
        instant = without_networks(segmenter_of(config))
        run_ours(instant, scan, ours, "without networks")
        labels = sitk.ReadImage(str(ours))
        calls = {
            "overhead": lambda: run_ours(instant, scan, ours, "without networks"),
            "read": lambda: sitk.ReadImage(str(scan)),
            "write": lambda: sitk.WriteImage(labels, str(theirs), useCompression=True),
        }
        taken = in_turn(calls, config["instant_repeats"])
        overhead, plain = min(taken["overhead"]), min(map(sum, zip(taken["read"], taken["write"], strict=True)))
        print(f"SimpleITK reads the scan and writes the labels in {plain:.2f} s, all but our networks takes {overhead:.2f} s")
        segmenter = segmenter_of(config)
        total = min(seconds(lambda: run_ours(segmenter, scan, ours, "ours")) for _ in range(config["repeats"]))
        found = {"overhead": overhead / plain, **measure_rates(segmenter, read_volume(scan), config["repeats"])}
        if find_spec("nnunetv2") is None:
            print('nnU-Net is not installed, nothing is compared with it; pip install "kits[bench]"')
        else:
            found["times_nnunet"] = NnunetPredictor(config, scan).measure(theirs, full=config["full"]) / total
    return found


def run_ours(segmenter: Segmenter, scan: Path, target: Path, name: str) -> None:
    """Segment from file to file, and print how long each phase took."""
    began = time.perf_counter()
    volume = read_volume(scan)
    read = time.perf_counter() - began
    result = segmenter.segment(volume)
    written = time.perf_counter()
    write_labels(target, result.labels, volume.grid)
    ended = time.perf_counter()
    phases = {"read": read, **result.seconds, "write": ended - written}
    print(
        f"{name}: {ended - began:.2f} s ({', '.join(f'{phase} {value:.2f}' for phase, value in phases.items())}),"
        f" ROIs {[list(box.shape) for box in result.boxes]}",
        flush=True,
    )


def measure_footprint(config: dict[str, Any]) -> dict[str, float]:
    """Measure GB (10^9 bytes) above the libraries, by volume of `config.footprint`."""
    return {name: footprint(name, volume, config) for name, volume in config["footprint"].items()}


def footprint(name: str, volume: dict[str, Any], config: dict[str, Any]) -> float:
    """Measure GB above the libraries for one made volume."""
    shape = tuple(volume["shape"])
    with scratch_folder(config) as scratch:
        path = scratch / "scan.nii.gz"
        write_volume(path, draw_scan(shape), upright(shape, volume["spacing"]))
        found = in_fresh_process(segment, {**config, "rois": volume["rois"], "scan": str(path)})
    above = found["peak"] - found["libraries"]
    voxels = f"{shape[0]} x {shape[1]} x {shape[2]}"
    print(
        f"{name:>28} {voxels}: peak {found['peak']:.2f} GB, libraries {found['libraries']:.2f} GB,"
        f" above them {above:.2f} GB (after reading {found['read']:.2f}, segmenting {found['segmented']:.2f});"
        f" {found['seconds']:.0f} s",
        flush=True,
    )
    return float(above)


def segment(config: dict[str, Any]) -> dict[str, float]:
    """Read, segment and write: GB after each step, and the peak of all."""
    torch.set_num_threads(config["threads"])
    found = {"libraries": peak_gb()}

    def work() -> None:
        segmenter = segmenter_of(config)
        volume = read_volume(config["scan"])
        found["read"] = peak_gb() - found["libraries"]
        result = segmenter.segment(volume)
        found["segmented"] = peak_gb() - found["libraries"]
        write_labels(Path(config["scan"]).with_name("labels.nii.gz"), result.labels, volume.grid)

    taken = seconds(work)
    return {**found, "peak": peak_gb(), "seconds": taken}


def segmenter_of(config: dict[str, Any]) -> Segmenter:
    """Load the segmenter on the CPU."""
    if (config["coarse"] is None) != (config["fine"] is None):
        raise KitsError("coarse, fine: give both checkpoints or neither")
    if config["coarse"] is not None:
        return Segmenter.load(config["coarse"], config["fine"], "cpu")
    torch.manual_seed(config["seed"])
    # What random networks say reaches every border, where a trained one's result seldom does.
    config["fine_stage"]["roi"]["grow_rounds"] = 0
    pairs = []
    for name in ("coarse", "fine"):
        stage = {**config[f"{name}_stage"], "data": config["data"], "kits_format": FORMAT}
        model: Model = parse(Model, stage["model"])
        network = build_network(model, pretrained=False).eval()
        pairs.append((network, settings_of(Path(name), stage, model, network)))
    return UsualRois(pairs, config["rois"])


class Instant(nn.Module):
    """A network at no cost worth speaking of: above 120 HU in the usual window is class 1."""

    def __init__(self, classes: int, multiple: int) -> None:
        super().__init__()
        self.classes, self.in_plane_multiple = classes, multiple

    def forward(self, volume: Tensor) -> Tensor:
        """Turn (1, 1, D, H, W) into (1, classes, D, H, W)."""
        logits = volume.new_zeros(1, self.classes, *volume.shape[2:])
        logits[:, min(1, self.classes - 1)] = volume[:, 0] - 0.1
        return logits


def without_networks(segmenter: Segmenter) -> Segmenter:
    """Return the same segmenter, its networks replaced by `Instant`."""
    fine = Instant(len(segmenter.classes), int(segmenter.fine.networks[0].in_plane_multiple))  # type: ignore[attr-defined]
    segmenter.coarse = replace(segmenter.coarse, networks=[Instant(1, 1)])
    segmenter.fine = replace(segmenter.fine, networks=[fine])
    return segmenter


class UsualRois(Segmenter):
    """A segmenter whose coarse stage runs, but whose ROIs have given sizes, whatever its weights say."""

    def __init__(self, pairs: Sequence[tuple[nn.Module, Exported]], rois_mm: Sequence[Sequence[float]]) -> None:
        super().__init__(pairs[:1], pairs[1:], torch.device("cpu"))
        self.rois_mm = rois_mm

    def find_rois(self, volume: Volume) -> Rois:
        found = super().find_rois(volume)
        margin = self.coarse_settings.roi.margin_mm
        boxes = [
            box_about((0.5, 0.5, (k + 1) / (len(self.rois_mm) + 1)), size, volume).grow_mm(
                margin, volume.spacing, volume.array.shape
            )
            for k, size in enumerate(self.rois_mm)
        ]
        return replace(found, boxes=boxes, whole_body=False)


def box_about(place: Sequence[float], size_mm: Sequence[float], volume: Volume) -> Box:
    """Make a box of this size (z, y, x) in mm about a place in shares of the volume, cut at its faces."""
    corners = []
    for share, size, step, n in zip(place, size_mm, volume.spacing, volume.array.shape, strict=True):
        half = min(size / step, n) / 2
        corners.append((max(0, round(share * n - half)), min(n, round(share * n + half))))
    (z0, z1), (y0, y1), (x0, x1) = corners
    return Box((z0, y0, x0), (z1, y1, x1))
