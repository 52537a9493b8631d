"""`python -m kits.export coarse=CKPT fine=CKPT output=DIR`: networks as ONNX files, for kits.predict."""

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

    Raises:
        KitsError: no checkpoint is given or one cannot be used, a network cannot be expressed in ONNX, or the results differ.
    """
    config = plain(options)
    from kits.inference.onnx_export import export_network
    from kits.io import make_folder
    from kits.models.onnx_files import SUFFIX, require_libraries

    given = {stage: Path(config[stage]) for stage in ("coarse", "fine") if config[stage]}
    if not given:
        raise KitsError("coarse, fine: no checkpoint given; add coarse=CKPT, fine=CKPT or both")
    require_libraries("onnx", "onnxruntime", "onnxscript")
    folder = Path(config["output"])
    make_folder(folder, "output")
    for stage, checkpoint in given.items():
        path = folder / f"{stage}{SUFFIX}"
        print(f"tracing {checkpoint}; a fine stage of three encoders takes minutes", flush=True)
        difference = export_network(checkpoint, stage, path)
        size = path.stat().st_size / 2**20
        print(f"{path}: {size:.1f} MiB, logits within {difference:.1g} of torch's", flush=True)


if __name__ == "__main__":
    main()
