"""`python -m kits.download output=DIR cases=...`: KiTS19 from its two public servers."""

import os
import sys
from typing import TYPE_CHECKING

from kits.config import require
from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Download


@command("download")
def main(options: "Download") -> None:
    """Fetch what `conf/download.yaml` and the command line ask for and is not there yet."""
    require(options.cases, "cases", "add cases=train (0-209), cases=all (0-299), a range such as cases=0-41, or cases=[3,160]")
    from kits.data.downloading import download

    try:
        print(download(options))
    except KeyboardInterrupt:
        # At once: a thread that waits for a silent server, or is in native code, must not meet the end of the interpreter.
        sys.stderr.flush()
        os._exit(130)


if __name__ == "__main__":
    main()
