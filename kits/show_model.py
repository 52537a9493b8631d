"""`python -m kits.show_model [folder=DIR]`: the networks that come with kits, and what they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import ShowModel


@command("show_model")
def main(options: ShowModel) -> None:
    """Print the model card, files with size and SHA-256, and what the networks were made of."""
    from kits.io.shipped import FOLDER, TEXT, check_files, read_card

    folder = FOLDER if options.folder is None else Path(options.folder)
    card = read_card(folder)
    check_files(folder, card)
    print((folder / TEXT).read_text(encoding="utf-8").strip())
    print(f"\nkits {card.kits_version}, {card.written}, {folder}")
    for name, file in card.files.items():
        print(f"  {name}: {file.bytes / 1e6:.2f} MB, SHA-256 {file.sha256}")
    for stage, origin in card.origins.items():
        cases = "cases that they do not name" if origin.trained_on is None else f"{len(origin.trained_on)} cases"
        print(
            f"  {stage}: of {len(origin.checkpoints)} checkpoint(s) trained on {cases}, SHA-256 {', '.join(origin.checkpoints)}"
        )
    same = card.agreement
    print(f"  labels against those of the checkpoints: kidney Dice {same.kidney:.4f}, tumor Dice {same.tumor:.4f}")


if __name__ == "__main__":
    main()
