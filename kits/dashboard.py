"""`python -m kits.dashboard [project=...] [entity=...]`: the W&B workspace of the trainings."""

from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Dashboard


@command("dashboard")
def main(options: "Dashboard") -> None:
    """Save the workspace, or write its specification where no server can be reached."""
    from kits.tracking.workspace import update_dashboard

    print(f"dashboard: {update_dashboard(options)}")


if __name__ == "__main__":
    main()
