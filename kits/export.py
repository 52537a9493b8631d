"""`python -m kits.export coarse=CKPT fine=CKPT output=DIR`: networks as files, or a MONAI Bundle."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Export


@command("export")
def main(options: "Export") -> None:
    """Write networks as ONNX, safetensors or a MONAI Bundle, and compare them with the checkpoints."""
    from kits.inference.exporting import export_networks

    export_networks(options)


if __name__ == "__main__":
    main()
