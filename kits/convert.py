"""`python -m kits.convert data=nnunet|msd|bids|pairs|dicom root=DIR output=DIR`: a tree of links."""

from pathlib import Path
from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Convert


@command("convert")
def main(options: "Convert") -> None:
    """Link the cases of a data set into a KiTS tree, and name what is left out."""
    if options.data.layout == "dicom":
        from kits.prediction.dicom_tree import convert_dicom

        print(convert_dicom(options.data, Path(options.root), Path(options.output)))
        return
    from kits.data.converting import convert

    print(convert(options.data, Path(options.root), Path(options.output)))


if __name__ == "__main__":
    main()
