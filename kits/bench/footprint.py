"""Peak memory of segmenting a large volume file to file, in a fresh process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kits.bench.data_parts import scan
from kits.bench.timing import in_fresh_process, peak_gb, scratch_folder, seconds, upright
from kits.io import write_volume


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Measure GB (10^9 bytes) above the libraries, by volume of `config.footprint`."""
    return {name: footprint(name, volume, config) for name, volume in config["footprint"].items()}


def footprint(name: str, volume: dict[str, Any], config: dict[str, Any]) -> float:
    """Measure GB above the libraries for one made volume."""
    shape = tuple(volume["shape"])
    with scratch_folder(config) as scratch:
        path = scratch / "scan.nii.gz"
        write_volume(path, scan(shape), upright(shape, volume["spacing"]))
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
    import torch

    from kits.bench.segmenters import segmenter_of
    from kits.io import read_volume, write_labels

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
