"""`python -m kits.prepare data.root=DIR [data.cache=DIR]`: validate and cache every case."""

from typing import TYPE_CHECKING

from kits.config import require
from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Prepare


@command("prepare")
def main(options: "Prepare") -> None:
    """Validate, split and cache a KiTS tree."""
    require(options.data.root, "data.root", "add data.root=DIR or set KITS_DATA (see .env.example)")
    from kits.data.preparation import prepare

    index = prepare(options.data)
    print(f"{len(index['cases'])} cases are ready in {options.data.cache} (data hash {index['data_hash'][:12]})")


if __name__ == "__main__":
    main()
