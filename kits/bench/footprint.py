"""Peak memory of segmenting a large volume file to file, in a fresh process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from kits.bench.scan_reading import UPRIGHT, scan
from kits.core.errors import KitsError
from kits.io import make_folder, write_volume
from kits.volume import Grid

CALL = "import sys; from kits.bench.footprint import child; child(sys.argv[1])"


def measure(config: dict[str, Any]) -> dict[str, float]:
    """GB (10^9 bytes) above the libraries, by volume of `config.footprint`."""
    scratch = Path(config["scratch"])
    make_folder(scratch, "scratch")
    return {name: footprint(name, volume, config, scratch) for name, volume in config["footprint"].items()}


def footprint(name: str, volume: dict[str, Any], config: dict[str, Any], scratch: Path) -> float:
    """GB above the libraries for one made volume."""
    path, task = scratch / f"{name}.nii.gz", scratch / f"{name}.json"
    shape, spacing = tuple(volume["shape"]), tuple(volume["spacing"])
    try:
        write_volume(path, scan(shape), Grid(shape[::-1], spacing[::-1], (0.0, 0.0, 0.0), UPRIGHT))
        task.write_text(json.dumps({**config, "rois": volume["rois"], "scan": str(path)}))
        ended = subprocess.run([sys.executable, "-c", CALL, str(task)], capture_output=True, text=True)
        if ended.returncode:
            said = ended.stderr.strip() or f"killed by signal {-ended.returncode}; was memory short?"
            raise KitsError(f"{name}: the measured process failed: {said.splitlines()[-1]}")
        found = json.loads(ended.stdout.splitlines()[-1])
    finally:
        path.unlink(missing_ok=True)
        task.unlink(missing_ok=True)
    above = found["peak"] - found["libraries"]
    voxels = f"{shape[0]} x {shape[1]} x {shape[2]}"
    print(
        f"{name:>28} {voxels}: peak {found['peak']:.2f} GB, libraries {found['libraries']:.2f} GB,"
        f" above them {above:.2f} GB (after reading {found['read']:.2f}, segmenting {found['segmented']:.2f});"
        f" {found['seconds']:.0f} s",
        flush=True,
    )
    return float(above)


def child(task: str) -> None:
    """Read, segment and write; print GB after each step, and the peak of all."""
    import time

    import torch

    from kits.bench.segmenters import segmenter_of
    from kits.io import read_volume, write_labels

    config = json.loads(Path(task).read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    libraries = highest_gb()
    began = time.perf_counter()
    segmenter = segmenter_of(config)
    volume = read_volume(config["scan"])
    read = highest_gb()
    result = segmenter.segment(volume)
    segmented = highest_gb()
    target = Path(config["scan"]).with_name("labels.nii.gz")
    try:
        write_labels(target, result.labels, volume.grid)
    finally:
        target.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    gone = {"read": read - libraries, "segmented": segmented - libraries}
    print(json.dumps({"libraries": libraries, **gone, "peak": highest_gb(), "seconds": seconds}))


def highest_gb() -> float:
    """The most memory that this process has had so far, in 10^9 bytes."""
    import resource

    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts what the parent had before exec in ru_maxrss, but not here
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
