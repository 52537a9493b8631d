"""`python -m kits.pipeline experiment=STUDY data.root=DIR output=DIR`: both stages from the data to the report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Pipeline

# Keys of conf/pipeline.yaml, and the steps that may stand before a key.
OWN = ("experiment", "output", "input", "truth", "overwrite", "overrides")
STEPS = ("prepare", "coarse", "fine", "predict", "evaluate", "report")


def main() -> None:
    """Let Hydra read what is this command's own, and the rest as the steps' overrides."""
    from kits.workflows.command_line import gathered

    sys.argv[1:] = gathered(sys.argv[1:], OWN, STEPS, rest="train")
    run()


@command("pipeline")
def run(options: Pipeline) -> None:
    """Prepare, train coarse and fine, predict, evaluate and report, each step only where its result is not up to date."""
    from kits.workflows.two_stages import run_two_stages

    run_two_stages(options)


if __name__ == "__main__":
    main()
