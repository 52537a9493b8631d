"""The configuration of a MONAI Bundle, with which MONAI's runner segments by way of kits.

Its parts are those that MONAI asks of a bundle for inference (monai.bundle.properties.InferProperties). MONAI's own evaluator
takes one network in one pass; here the whole of kits.predict takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from kits import __version__
from kits.io import write_json

INFERENCE: dict[str, object] = {
    "imports": ["$import glob", "$import kits"],
    "bundle_root": ".",
    "dataset_dir": "scans",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "auto",
    "keys": [],  # more of kits.predict's, as 'mirror=true'
    "coarse": "$@bundle_root + '/models/coarse.safetensors'",
    "fine": "$@bundle_root + '/models/fine.safetensors'",
    "options": {
        "_target_": "kits.config.composing.checked",
        "name": "predict",
        "overrides": "$['coarse=' + @coarse, 'fine=' + @fine, 'input=' + @dataset_dir, 'output=' + @output_dir,"
        " 'device=' + @device, *@keys]",
    },
    "evaluator": {"_target_": "kits.prediction.segmenting.predict_labels", "_mode_": "callable", "options": "@options"},
    "run": ["$@evaluator()"],
    # For a program that takes the workflow apart: the two stages as one object, scans in HU, and the one on the other.
    "network_def": {"_target_": "kits.load", "coarse": "@coarse", "fine": "@fine", "device": "@device"},
    "dataset": {"_target_": "Dataset", "data": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))", "transform": "$kits.read"},
    "inferer": "$lambda volume, network: network.segment(volume)",
}
ANY_SIZE = ["*", "*", "*"]


def weights_of(stage: str) -> str:
    """Name the weights of a stage within a bundle."""
    return f"models/{stage}.safetensors"


def write_configs(folder: Path, classes: Sequence[str]) -> None:
    """Write the two files of a bundle beside its weights: what it is, and how it is run.

    Args:
        folder: of the bundle.
        classes: the names of the labels; the first is the background.
    """
    labels = ", ".join(f"{label} {name}" for label, name in enumerate(classes))
    image = {"type": "image", "num_channels": 1, "spatial_shape": ANY_SIZE, "is_patch_data": False}
    metadata = {
        "version": __version__,
        "changelog": {__version__: "written by kits.export"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in ("kits", "SimpleITK", "timm", "safetensors")},
        "name": "kits",
        "task": "Kidneys and kidney tumors in CT",
        "description": "Finds the kidneys coarsely, then outlines kidney and tumor inside their regions at full resolution",
        "authors": "the authors of kits and whoever trained these weights",
        "copyright": "of the weights: whoever trained them",
        "intended_use": "Not validated on patients and not a medical device: nobody should act on its output",
        "image_classes": "one channel of CT in HU",
        "pred_classes": f"one channel of labels: {labels}",
        "network_data_format": {
            "inputs": {
                "image": {
                    **image,
                    "format": "hounsfield",
                    "modality": "CT",
                    "dtype": "int16",
                    "value_range": [-1024, 3071],
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    **image,
                    "format": "segmentation",
                    "dtype": "uint8",
                    "value_range": [0, len(classes) - 1],
                    "channel_def": {"0": labels},
                }
            },
        },
    }
    write_json(folder / "configs" / "metadata.json", metadata)
    write_json(folder / "configs" / "inference.json", INFERENCE)
