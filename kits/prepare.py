"""`python -m kits.prepare data.root=DIR [data.cache=DIR]`: validate every case and write the cache that training reads."""

from typing import Any

from kits.config import require
from kits.config.command import command


@command("prepare")
def main(config: dict[str, Any]) -> None:
    """Validate, split and cache a KiTS tree."""
    data = config["data"]
    require(data["root"], "data.root", "add data.root=DIR or set KITS_DATA (see .env.example)")
    from kits.data.preparation import prepare

    index = prepare(data)
    print(f"{len(index['cases'])} cases are ready in {data['cache']} (data hash {index['data_hash'][:12]})")


if __name__ == "__main__":
    main()
