"""One real scan file to file: ours by phases, nnU-Net's predictor, SimpleITK's reading and writing."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch

from kits.bench.nnunet import NnunetPredictor
from kits.bench.rates import measure_rates
from kits.bench.segmenters import segmenter_of, without_networks
from kits.bench.timing import in_turn, scratch_folder, seconds
from kits.inference.segmenter import Segmenter
from kits.io import read_volume, write_labels


def measure(config: dict[str, Any]) -> dict[str, float]:
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
