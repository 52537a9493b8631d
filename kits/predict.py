"""`python -m kits.predict coarse=CKPT fine=CKPT input=... output=...`: segment a file, a DICOM folder or a folder of cases.

With `split=oof coarse=[CKPT,...]` it writes no label maps but `boxes.json`, the ROIs that the fine stage can be trained on.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kits.cli import command
from kits.config import require
from kits.errors import KitsError
from kits.sharding import choose_shard, local_rank, share

OUT_OF_FOLD = "oof"


@command("predict")
def main(config: dict[str, Any]) -> None:
    """Write one label map for each input, in its own grid, and `report.json` beside them; or `boxes.json`."""
    if config["split"]["source"] == OUT_OF_FOLD:
        predict_out_of_fold(config)
    else:
        predict_labels(config)


def predict_labels(config: dict[str, Any]) -> None:
    """Segment every input with both stages.

    Raises:
        KitsError: a checkpoint is missing or several are given, or inputs cannot be found or read.
    """
    from kits.data.index import case_ids, find_images
    from kits.data.splits import read_split, refuse_lone_fold

    require(config["fine"], "fine", "add fine=CKPT")
    if not isinstance(config["coarse"], str):
        raise KitsError("coarse: several checkpoints are for split=oof; give one")
    cases, split = case_ids(config["cases"]), config["split"]["source"]
    refuse_lone_fold(split, config["fold"])
    if cases is None and split is not None:
        cases = read_split(Path(split)).subset(config["subset"], config["fold"])
    images = find_images(Path(config["input"]), cases)
    targets = {name: target_of(name, Path(config["output"]), len(images)) for name in images}
    shard, shards = choose_shard(config["shard"], config["shards"])
    own = share(list(images), shard, shards)
    if not own:
        print(f"shard {shard} of {shards}: {len(images)} inputs leave none for it")
        return

    from kits.io import make_folder
    from kits.segmenter import Segmenter

    segmenter = Segmenter.load(config["coarse"], config["fine"], own_device(config["device"]))
    if split is not None and config["cases"] is None and config["subset"] == "validation":
        refuse_leaks(images, {"coarse": segmenter.coarse_config, "fine": segmenter.fine_config})
    for folder in {target.parent for target in targets.values()}:
        make_folder(folder, "output")  # before minutes are spent on what could not be written
    report = "report.json" if shards == 1 else f"report_{shard}_of_{shards}.json"
    predict(segmenter, {name: images[name] for name in own}, targets, report)


def own_device(name: str) -> str:
    """The GPU of this process's number on its machine, where there are several and none is named."""
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{local_rank() % gpus}" if gpus and name in ("auto", "cuda") else name


def refuse_leaks(cases: Iterable[str], configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to predict as validation what a checkpoint was trained on; older checkpoints do not say what that was.

    Raises:
        KitsError: a checkpoint knows a case.
    """
    for stage, config in configs.items():
        seen = sorted(set(config.get("trained_on") or ()) & set(cases))
        if seen:
            raise KitsError(
                f"{stage}: this checkpoint was trained on {len(seen)} of these validation cases, the first {seen[0]};"
                " give the one of this split and fold, or name the cases with cases=[...]"
            )


def predict_out_of_fold(config: dict[str, Any]) -> None:
    """Write `boxes.json`: for every case the ROIs of the first coarse checkpoint that was not trained on it.

    A damaged case is named at the end and the others go on.

    Raises:
        KitsError: a checkpoint does not say what it was trained on, every one was trained on some case, or inputs cannot be read.
    """
    from tqdm import tqdm

    if choose_shard(config["shard"], config["shards"])[1] > 1:
        raise KitsError("split=oof: writes one boxes.json for all cases; start it as one process, without shards")
    from kits.checkpoint import load_network
    from kits.data.boxes import choose_checkpoints, write_boxes
    from kits.data.cache import file_digest
    from kits.data.index import case_ids, find_images
    from kits.segmenter import pick_device

    paths = [config["coarse"]] if isinstance(config["coarse"], str) else config["coarse"]
    source, output = Path(config["input"]), Path(config["output"])
    if source.is_file():
        raise KitsError(f"input={source}: is one file, whose case nobody can tell; split=oof needs a folder of cases")
    images = find_images(source, case_ids(config["cases"]))
    device = pick_device(config["device"])
    networks = {str(path): load_network(Path(path), "coarse", device) for path in paths}
    trained_on = {path: training_cases(path, of_network) for path, (_, of_network) in networks.items()}
    chosen = choose_checkpoints(images, trained_on)
    cases, failed = {}, []
    for case, image in tqdm(images.items(), desc="out of fold", unit="case"):
        try:
            found = out_of_fold_boxes(image, *networks[chosen[case]], device)
        except KitsError as error:
            failed.append(str(error))
            tqdm.write(f"left out: {error}")
            continue
        for warning in found["warnings"]:
            tqdm.write(f"{case}: {warning}")
        cases[case] = {"checkpoint": chosen[case], **found}
    used = {path: {"sha256": file_digest(Path(path)), "trained_on": ids} for path, ids in trained_on.items()}
    if cases:
        write_boxes(output / "boxes.json", used, cases)
        print(f"{coverage_line(cases)}: {output / 'boxes.json'}")
    if failed:
        raise KitsError(f"{len(failed)} of {len(images)} inputs could not be read, the first: {failed[0]}")


def training_cases(path: str, config: dict[str, Any]) -> list[str]:
    """The ids of the cases that a checkpoint was trained on.

    Raises:
        KitsError: the checkpoint is older than this record.
    """
    if not config.get("trained_on"):
        raise KitsError(f"{path}: does not say which cases it was trained on (an older checkpoint); train it again for split=oof")
    return list(config["trained_on"])


def out_of_fold_boxes(image: Path, network: Any, config: dict[str, Any], device: Any) -> dict[str, Any]:
    """What `boxes.json` keeps of one case: its boxes, their frame, how well they cover the label map where there is one.

    Raises:
        KitsError: the image or its label map cannot be read.
    """
    import numpy as np

    from kits.data.boxes import to_mm
    from kits.io import read_labels, read_volume
    from kits.labels import REGIONS
    from kits.roi import coverage
    from kits.segmenter import find_boxes

    volume = read_volume(image)
    boxes, warnings = find_boxes(network, config, volume, device)
    found: dict[str, Any] = {
        "boxes_mm": [to_mm(box, volume.spacing) for box in boxes],
        "shape": list(volume.array.shape),
        "spacing": list(volume.spacing),
        "warnings": warnings,
    }
    label = image.with_name(config["data"]["label_name"])
    if label.is_file():
        truth = read_labels(label, allowed=range(256)).array
        found["coverage"] = {region: round(coverage(boxes, np.isin(truth, values)), 4) for region, values in REGIONS.items()}
    return found


def coverage_line(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """One line on the boxes of all cases: how many, how often nothing was found, how much of each region they cover."""
    from statistics import fmean

    covered = [case["coverage"] for case in cases.values() if "coverage" in case]
    means = [f"{fmean(case[region] for case in covered):.4f} of {region}" for region in (covered[0] if covered else ())]
    empty = sum(bool(case["warnings"]) for case in cases.values())
    return f"boxes of {len(cases)} cases" + (f" cover {' and '.join(means)}" if means else "") + f", {empty} without an ROI"


def target_of(name: str, output: Path, count: int) -> Path:
    """Where the label map of an input goes: `output` itself for one input and a file name, else a file inside it.

    Raises:
        KitsError: several inputs and one file name, or a name that is not written.
    """
    if output.name.endswith(".nii"):
        raise KitsError(f"output={output}: label maps are written compressed; give a name that ends in .nii.gz, or a folder")
    if not output.name.endswith(".nii.gz"):
        return output / f"{name}.nii.gz"
    if count > 1:
        raise KitsError(f"output={output}: one file for {count} inputs; give a folder")
    return output


def predict(segmenter: Any, images: dict[str, Path], targets: dict[str, Path], report_name: str = "report.json") -> None:
    """Segment every image; a damaged one is named at the end and the others go on.

    Raises:
        KitsError: one or more inputs could not be segmented.
    """
    import time

    from tqdm import tqdm

    from kits.io import read_volume, write_json, write_labels

    report, failed = {}, []
    for name, path in tqdm(images.items(), desc="predict", unit="case"):
        began = time.perf_counter()
        try:
            volume = read_volume(path)
        except KitsError as error:
            failed.append(str(error))
            tqdm.write(f"left out: {error}")
            continue
        read = time.perf_counter() - began
        result = segmenter.segment(volume)
        for warning in result.warnings:
            tqdm.write(f"{name}: {warning}")
        began = time.perf_counter()
        write_labels(targets[name], result.labels, volume.grid)
        seconds = {"read": read, **result.seconds, "write": time.perf_counter() - began}
        report[name] = {
            "input": str(path),
            "output": str(targets[name]),
            "boxes": [box.to_list() for box in result.boxes],
            "volumes_ml": {region: round(volume_ml, 2) for region, volume_ml in result.volumes_ml.items()},
            "warnings": result.warnings,
            "seconds": {step: round(value, 2) for step, value in seconds.items()},
        }
        write_json(targets[name].parent / report_name, report)  # after each: what is done stays told if a later one fails
    if failed:
        raise KitsError(f"{len(failed)} of {len(images)} inputs could not be segmented, the first: {failed[0]}")


if __name__ == "__main__":
    main()
