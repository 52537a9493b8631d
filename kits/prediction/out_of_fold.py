"""`boxes.json`: the ROIs of every case by a coarse checkpoint that was not trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kits.config.schema.commands import Boxes
from kits.config.schema.exported import Exported, ExportedCoarse
from kits.core.errors import KitsError
from kits.data.scans import Scan

if TYPE_CHECKING:
    import torch

    from kits.inference.members import Network


def predict_out_of_fold(options: Boxes) -> None:
    """Write `boxes.json`: every case's ROIs by the first coarse checkpoint not trained on it.

    A damaged case is named at the end and the others go on.

    Raises:
        KitsError: a checkpoint does not say what it was trained on, every one was trained on some case, or inputs cannot be read.
    """
    from tqdm import tqdm

    from kits.core.sharding import launched
    from kits.data.cache import file_digest
    from kits.data.index import case_ids
    from kits.data.roi_boxes import choose_checkpoints, write_boxes
    from kits.data.scans import find_inputs
    from kits.inference.devices import AUTO, described, pick_device, pick_precision
    from kits.inference.onnx_network import device_for, load_member
    from kits.io.shipped import network_files
    from kits.models.settings import is_exported
    from kits.prediction.segmenting import check_backend

    if launched().count > 1:
        raise KitsError("one boxes.json is written for all cases; start it as one process, without torchrun or srun")
    paths = network_files({"coarse": options.coarse})["coarse"]
    check_backend(options.backend, paths)
    source, output = Path(options.input), Path(options.output)
    if source.is_file():
        raise KitsError(f"input={source}: is one file, whose case nobody can tell; give a folder of cases")
    images = find_inputs(source, case_ids(options.cases)).scans
    device = pick_device(device_for(paths, options.device))
    precision = "32" if any(map(is_exported, paths)) else pick_precision(str(options.precision), device)
    print(described(device, precision, chosen=options.precision == AUTO))
    networks = {str(path): load_member(path, "coarse", device) for path in paths}
    trained_on = {path: settings.trained_on or [] for path, (_, settings) in networks.items()}
    if silent := next((path for path, cases in trained_on.items() if not cases), None):
        raise KitsError(f"{silent}: does not say which cases it was trained on; train it again")
    chosen = choose_checkpoints(images, trained_on)
    cases, failed = {}, []
    for case, image in tqdm(images.items(), desc="out of fold", unit="case"):
        try:
            found = out_of_fold_boxes(image, *networks[chosen[case]], device, precision)
        except KitsError as error:
            failed.append(str(error))
            tqdm.write(f"left out: {error}")
            continue
        for warning in found["warnings"]:
            tqdm.write(f"{case}: {warning}")
        cases[case] = {"checkpoint": chosen[case], **found}
    used = {
        path: {
            "sha256": file_digest(Path(path)),
            "trained_on": ids,
            "by_parent": parent.trained_on if (parent := networks[path][1].parent) else [],
        }
        for path, ids in trained_on.items()
    }
    if cases:
        write_boxes(output / "boxes.json", used, cases)
        print(f"{coverage_line(cases)}: {output / 'boxes.json'}")
    if failed:
        raise KitsError(f"{len(failed)} of {len(images)} inputs could not be read, the first: {failed[0]}")


def out_of_fold_boxes(image: Scan, network: Network, settings: Exported, device: torch.device, precision: str) -> dict[str, Any]:
    """Find what `boxes.json` keeps of one case: boxes, frame, and coverage of its label map.

    Raises:
        KitsError: the image or its label map cannot be read.
    """
    import numpy as np

    from kits.core.labels import CLASSES, REGIONS, classes_by_id
    from kits.data.roi_boxes import to_mm
    from kits.inference.coarse import find_rois_in
    from kits.inference.members import Members
    from kits.io import read_labels
    from kits.volume.rois import coverage

    assert isinstance(settings, ExportedCoarse)
    volume = image.read()
    rois = find_rois_in(volume, Members([network], precision, device.type), settings, device)
    found: dict[str, Any] = {
        "boxes_mm": [to_mm(box, volume.spacing) for box in rois.boxes],
        "shape": list(volume.array.shape),
        "spacing": list(volume.spacing),
        "warnings": rois.warnings,
        "whole_body": rois.whole_body,
    }
    label = image.path.with_name(settings.data.label_name)
    if label.is_file():
        own = settings.data.labels
        truth = read_labels(label, classes_by_id(own.ids) if own else None, allowed=range(len(CLASSES))).array
        found["coverage"] = {region: round(coverage(rois.boxes, np.isin(truth, values)), 4) for region, values in REGIONS.items()}
    return found


def coverage_line(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """Tell in one line of the boxes of all cases: how many, how often none, and their coverage."""
    from statistics import fmean

    covered = [case["coverage"] for case in cases.values() if "coverage" in case]
    means = [f"{fmean(case[region] for case in covered):.4f} of {region}" for region in (covered[0] if covered else ())]
    empty = sum(case["whole_body"] for case in cases.values())
    return f"boxes of {len(cases)} cases" + (f" cover {' and '.join(means)}" if means else "") + f", {empty} without an ROI"
