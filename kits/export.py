"""`python -m kits.export coarse=CKPT fine=CKPT output=DIR [format=safetensors]`: networks as files for kits.predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kits.config import plain
from kits.config.command import command
from kits.core.errors import KitsError

if TYPE_CHECKING:
    from kits.config.schema.commands import Export


@command("export")
def main(options: Export) -> None:
    """Write coarse.onnx and fine.onnx, each with the configuration that prediction needs, and compare them with torch.

    Or coarse.safetensors and fine.safetensors, in half precision.

    Raises:
        KitsError: no checkpoint is given or one cannot be used, a network cannot be expressed in ONNX, or the results differ.
    """
    config = plain(options)
    from kits.io import make_folder, whole_file
    from kits.models.checkpoint import load_network, network_facts
    from kits.models.onnx_files import require_libraries
    from kits.models.plain_weights import to_bytes

    given = {stage: Path(config[stage]) for stage in ("coarse", "fine") if config[stage]}
    if not given:
        raise KitsError("coarse, fine: no checkpoint given; add coarse=CKPT, fine=CKPT or both")
    if config["format"] == "onnx":
        require_libraries("onnx", "onnxruntime", "onnxscript")
    folder = Path(config["output"])
    make_folder(folder, "output")
    for stage, checkpoint in given.items():
        path = folder / f"{stage}.{config['format']}"
        told = "weights in half precision"
        if config["format"] == "onnx":
            from kits.inference.onnx_export import export_network

            print(f"tracing {checkpoint}; a fine stage of three encoders takes minutes", flush=True)
            told = f"logits within {export_network(checkpoint, stage, path):.1g} of torch's"
        else:
            network, trained = load_network(checkpoint, stage, "cpu")
            with whole_file(path, path.suffix) as temporary:
                temporary.write_bytes(to_bytes(network, trained, network_facts(network, trained)))
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {told}", flush=True)


if __name__ == "__main__":
    main()
