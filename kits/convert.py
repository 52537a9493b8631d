"""`python -m kits.convert CHECKPOINT...`: bring checkpoints of older formats to the one that this version reads."""

from __future__ import annotations

import sys
from pathlib import Path

from kits.errors import KitsError


def main(arguments: list[str]) -> int:
    """Convert each file in place, once all of it is known to be convertible; the exit code."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print("python -m kits.convert CHECKPOINT...: bring checkpoints of older formats to this version's, in place")
        return 0 if arguments in (["-h"], ["--help"]) else 1
    from kits.checkpoint import convert

    try:
        for argument in arguments:
            written, now = convert(Path(argument))
            print(f"{argument}: format {written}, converted to {now}" if written != now else f"{argument}: is of format {now}")
    except KitsError as error:
        print(f"kits.convert: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
