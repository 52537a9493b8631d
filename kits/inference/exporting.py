"""`kits.export` from its options to files: each network with the configuration that prediction needs."""

from __future__ import annotations

from pathlib import Path

from kits.config.schema.commands import Export
from kits.config.schema.exported import ExportedFine
from kits.inference.monai_bundle import weights_of, write_configs
from kits.inference.onnx_export import export_network
from kits.inference.shipping import ship
from kits.io import make_folder, whole_file
from kits.io.shipped import network_files
from kits.models.checkpoint import load_network
from kits.models.onnx_files import require_libraries
from kits.models.plain_weights import to_bytes


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
            path = path if half else folder / weights_of(stage)
            with whole_file(path, path.suffix) as temporary:
                temporary.write_bytes(to_bytes(network, settings, half=half))
            told = "weights in half precision" if half else "weights as they were trained"
            if isinstance(settings, ExportedFine) and not half:
                write_configs(folder, settings.data.classes)
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {told}", flush=True)
