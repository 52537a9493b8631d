"""`python -m kits.pipeline study=STUDY data.root=DIR output=DIR`: from the data to the report."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.workflow import Pipeline


@command("pipeline")
def main(options: "Pipeline") -> None:
    """Prepare, train both stages, predict, evaluate and report, each where it is not up to date."""
    from kits.config.composing import typed_overrides
    from kits.workflows.two_stages import run_two_stages

    run_two_stages(options, typed_overrides())


if __name__ == "__main__":
    main()
