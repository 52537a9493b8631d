"""`kits.export` from its options to files: each network with the configuration that prediction needs.

A MONAI Bundle's has the parts that MONAI asks of a bundle for inference (monai.bundle.properties.InferProperties), with which its
runner segments by way of kits. MONAI's own evaluator takes one network in one pass; here the whole of kits.predict takes its
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from kits import __version__
from kits.config.schema.commands import Export
from kits.config.schema.exported import ExportedFine
from kits.inference.onnx_export import export_network
from kits.inference.shipping import ship
from kits.io import make_folder, whole_file, write_json
from kits.io.shipped import network_files
from kits.models.checkpoint import load_network
from kits.models.onnx_files import require_libraries
from kits.models.plain_weights import to_bytes

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


def export_networks(options: Export) -> None:
    """Write the networks that are given in one of the formats of conf/export.yaml.

    Raises:
        KitsError: a checkpoint cannot be used, a network cannot be expressed in ONNX, or the results differ.
    """
    named = {stage: path for stage, path in (("coarse", options.coarse), ("fine", options.fine)) if path is not None}
    given = network_files(named)
    if options.format == "shipped":
        ship(options, given)
        return
    if options.format == "onnx":
        require_libraries("onnx", "onnxruntime", "onnxscript")
    networks = {stage: load_network(path, stage, "cpu") for stage, (path,) in given.items()}  # refused before minutes of tracing
    folder = Path(options.output)
    make_folder(folder, "output")
    for stage, (checkpoint,) in given.items():
        path = folder / f"{stage}.{options.format}"
        if options.format == "onnx":
            print(f"tracing {checkpoint}; a fine stage of three encoders takes minutes", flush=True)
            told = f"logits within {export_network(checkpoint, stage, path):.1g} of torch's"
        else:
            network, settings = networks[stage]
            half = options.format == "safetensors"
            path = path if half else folder / "models" / f"{stage}.safetensors"
            with whole_file(path, path.suffix) as temporary:
                temporary.write_bytes(to_bytes(network, settings, half=half))
            told = "weights in half precision" if half else "weights as they were trained"
            if isinstance(settings, ExportedFine) and not half:
                write_configs(folder, settings.data.classes)
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {told}", flush=True)


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
