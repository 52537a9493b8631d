"""`python -m kits.predict coarse=CKPT fine=CKPT input=... output=...`: segment a file, a DICOM folder or a folder of cases."""

from pathlib import Path
from typing import Any

from kits.cli import command
from kits.errors import KitsError


@command("predict")
def main(config: dict[str, Any]) -> None:
    """Write one label map for each input, in its own grid, and `report.json` beside them."""
    from kits.data.index import find_images, read_split

    cases = config["cases"]
    if config["split"] is not None:
        cases = read_split(Path(config["split"]), config["subset"])
    images = find_images(Path(config["input"]), cases)
    targets = {name: target_of(name, Path(config["output"]), len(images)) for name in images}

    from kits.segmenter import Segmenter

    segmenter = Segmenter.load(config["coarse"], config["fine"], config["device"])
    predict(segmenter, images, targets)


def target_of(name: str, output: Path, count: int) -> Path:
    """Where the label map of an input goes: `output` itself for one input and a file name, else a file inside it.

    Raises:
        KitsError: several inputs and one file name.
    """
    if not output.name.endswith((".nii", ".nii.gz")):
        return output / f"{name}.nii.gz"
    if count > 1:
        raise KitsError(f"output={output}: one file for {count} inputs; give a folder")
    return output


def predict(segmenter: Any, images: dict[str, Path], targets: dict[str, Path]) -> None:
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
        targets[name].parent.mkdir(parents=True, exist_ok=True)
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
    if report:
        write_json(next(iter(targets.values())).parent / "report.json", report)
    if failed:
        raise KitsError(f"{len(failed)} of {len(images)} inputs could not be segmented, the first: {failed[0]}")


if __name__ == "__main__":
    main()
