"""Two-stage segmentation of kidneys and kidney tumors in CT: coarse on the whole, fine on ROIs.

`read`, `load`, `show`, `measure` and `save` are what Python may call, and `KitsError` what they raise; each imports what it needs
when it is called, so that a command or a module of the package starts without it.
"""

from __future__ import annotations

import sys

# `python -m kits.NAME` puts the working folder before all modules, and an `enum.py` or `yaml.py` that lies beside data would be
# taken for Python's or a library's. Behind them it brings own parts all the same. First of all: even pathlib imports much.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.core.errors import KitsError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from kits.inference.segmenter import Segmentation, Segmenter
    from kits.readout import CaseReading
    from kits.volume import Volume

__all__ = ["KitsError", "__version__", "load", "measure", "read", "save", "show"]
# No library tells its makers what it is used for, unless its user says so; most look once, when they are imported.
for _switch, _off in {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: connects to a collector, and writes ids of the device under the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: would ask the public hub beside a mirror
    "WANDB_ERROR_REPORTING": "false",  # wandb: sends its own errors
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_switch, _off)
__version__ = "0.1.0"
Paths = str | Path | Sequence[str | Path]


def read(path: str | Path) -> Volume:
    """Read a CT scan in HU: a file, or a folder that holds one DICOM series of CT.

    A file is .nii, .nii.gz, .nrrd, .mha or .mhd.

    Raises:
        KitsError: nothing there, damaged, or no 3D scan.
    """
    from kits.io import read_volume

    return read_volume(path)


def load(coarse: Paths | None = None, fine: Paths | None = None, *, device: str = "auto", **options: Any) -> Segmenter:
    """Load both stages' networks from a checkpoint each, or from several that are averaged.

    Without checkpoints it loads the networks that come with kits, where some do. `segment` of a volume is the rest.

    Args:
        device: `auto` is the GPU where there is one.
        options: those of `kits.config.schema.exported.SegmenterOptions`, such as mirror=True or outputs=("probabilities",).

    Raises:
        KitsError: a file is no checkpoint of its stage, or the device or an option cannot be used.
    """
    from kits.config.schema import parse
    from kits.config.schema.exported import SegmenterOptions
    from kits.inference.segmenter import Segmenter
    from kits.io.shipped import NOTICE, network_files

    if coarse is None or fine is None:
        files = network_files({"coarse": None if coarse is None else "", "fine": None if fine is None else ""})
        coarse, fine = files["coarse"], files["fine"]
        print(NOTICE, file=sys.stderr)
    return Segmenter.load(coarse, fine, device, parse(SegmenterOptions, options))


def show(volume: Volume, result: Segmentation, path: str | Path | None = None, *, name: str = "scan") -> Figure:
    """Draw slices of the scan with the outlines of what was found, as a Figure.

    Args:
        path: also write it there as PNG.
        name: stands in the heading.
    """
    from kits.reporting.scene import Scene
    from kits.reporting.scene import save as save_picture
    from kits.reporting.slices import slices_figure

    figure = slices_figure(Scene(name, volume.array, result.labels, None, volume.spacing, {}))
    if path is not None:
        save_picture(figure, Path(path))
    return figure


def measure(labels: Volume | np.ndarray, volume: Volume | None = None) -> CaseReading:
    """Measure what surgeons write down of each kidney and each tumor.

    Diameters, exophytic share, R.E.N.A.L., PADUA, HU.

    Args:
        labels: a label map that `read` has read, or `result.labels` of the volume that is given with it: 0 background, 1 kidney,
            2 tumor, 3 cyst.
        volume: the CT, for its HU.

    Returns:
        `kidneys`, `tumors` and `flags`; `to_dict()` is a plain container of them.

    Raises:
        KitsError: other labels, one slice, no spacing of a CT, or the two are not one case.
    """
    from kits.readout.cohort import measure_volume

    return measure_volume(labels, volume)


def save(path: str | Path, result: Segmentation, volume: Volume) -> None:
    """Write the label map as .nii.gz in the scan's own grid.

    0 background, 1 kidney, 2 tumor and, where it is known, 3 cyst.

    Raises:
        KitsError: the name does not end in .nii.gz, or the file cannot be written.
    """
    from kits.io import write_labels

    write_labels(path, result.labels, volume.grid)
