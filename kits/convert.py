"""`python -m kits.convert CHECKPOINT...`: bring checkpoints of older formats to the one that this version reads."""

from __future__ import annotations

import sys
from pathlib import Path

from kits.core.errors import KitsError


def main(arguments: list[str]) -> int:
    """Convert each file in place, and the config.yaml beside it, with which resume= goes on; the exit code."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print("python -m kits.convert CHECKPOINT...: bring checkpoints of older formats to this version's, in place")
        return 0 if arguments in (["-h"], ["--help"]) else 1
    from kits.models.checkpoint import convert

    try:
        for argument in arguments:
            written, now = convert(Path(argument))
            convert_run(Path(argument).parent, written)
            print(f"{argument}: format {written}, converted to {now}" if written != now else f"{argument}: is of format {now}")
    except KitsError as error:
        print(f"kits.convert: {error}", file=sys.stderr)
        return 1
    return 0


def convert_run(folder: Path, written: int) -> None:
    """Bring the configuration of a run folder, where it is one, from the format of its checkpoint to this version's."""
    from kits.models.checkpoint import upgraded
    from kits.runs.folder import CONFIG, read_config
    from kits.runs.resuming import write_config

    if (folder / CONFIG).is_file():
        config = upgraded(folder / CONFIG, {**read_config(folder), "kits_format": written})
        write_config(folder, {key: value for key, value in config.items() if key != "kits_format"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
