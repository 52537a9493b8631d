"""One real scan file to file: ours by phases, nnU-Net's own predictor, and SimpleITK's reading and writing alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch
from torch import nn

from kits.benches.peer import Peer
from kits.benches.segmenters import segmenter_of
from kits.io import make_folder, read_volume, write_labels
from kits.segmenter import Segmenter


def measure(config: dict[str, Any]) -> dict[str, float]:
    """How many times nnU-Net's time ours is faster, and what is not our networks over plain reading and writing.

    Args:
        config: conf/bench_predict.yaml.
    """
    torch.set_num_threads(config["threads"])
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(config["threads"])
    scan, scratch = Path(config["scan"]), Path(config["scratch"])
    make_folder(scratch, "scratch")
    ours, theirs = scratch / "ours.nii.gz", scratch / "theirs.nii.gz"
    try:
        total, overhead = min(run_ours(segmenter_of(config), scan, ours) for _ in range(config["repeats"]))
        plain = min(read_and_write(scan, ours, theirs) for _ in range(config["repeats"]))
        print(f"SimpleITK reads the scan and writes the labels in {plain:.2f} s, all but our networks takes {overhead:.2f} s")
        peer = Peer(config, scan).measure(theirs, full=config["full"])
    finally:
        ours.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)
    return {"times_nnunet": peer / total, "overhead": overhead / plain}


def run_ours(segmenter: Segmenter, scan: Path, target: Path) -> tuple[float, float]:
    """Seconds from file to file, and without the networks' forward passes."""
    networks = Stopwatch([*segmenter.coarse.networks, *segmenter.fine.networks])  # type: ignore[list-item]
    began = time.perf_counter()
    volume = read_volume(scan)
    read = time.perf_counter() - began
    result = segmenter.segment(volume)
    written = time.perf_counter()
    write_labels(target, result.labels, volume.grid)
    ended = time.perf_counter()
    phases = {"read": read, **result.seconds, "write": ended - written}
    networks.remove()
    total = ended - began
    print(
        f"ours: {total:.2f} s ({', '.join(f'{name} {value:.2f}' for name, value in phases.items())};"
        f" networks {networks.seconds:.2f}), ROIs {[list(box.shape) for box in result.boxes]}",
        flush=True,
    )
    return total, total - networks.seconds


def read_and_write(scan: Path, labels: Path, target: Path) -> float:
    """Seconds that SimpleITK takes to read the scan and to write labels that it has in memory."""
    image = sitk.ReadImage(str(labels))
    return seconds(lambda: sitk.ReadImage(str(scan))) + seconds(lambda: sitk.WriteImage(image, str(target), useCompression=True))


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call, its result dropped again."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Stopwatch:
    """Adds up the time inside the forward passes of some networks on the CPU."""

    def __init__(self, networks: list[nn.Module]) -> None:
        self.seconds = self._began = 0.0
        self._hooks = [network.register_forward_pre_hook(self._start) for network in networks]
        self._hooks += [network.register_forward_hook(self._stop) for network in networks]

    def _start(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began

    def remove(self) -> None:
        """Leave the networks as they were."""
        for hook in self._hooks:
            hook.remove()
