"""`python -m kits.download output=DIR cases=...`: KiTS19 from its two public servers, in the layout that kits.prepare reads."""

from typing import Any

from kits.config import require
from kits.config.command import command


@command("download")
def main(config: dict[str, Any]) -> None:
    """Fetch what `conf/download.yaml` and the command line ask for and is not there yet."""
    require(config["cases"], "cases", "add cases=train (0-209), cases=all (0-299), a range such as cases=0-41, or cases=[3,160]")
    from kits.data.downloading import download

    print(download(config))


if __name__ == "__main__":
    main()
