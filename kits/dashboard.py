"""`python -m kits.dashboard [project=...] [entity=...]`: the W&B workspace of the trainings."""

from __future__ import annotations

from typing import Any

from kits.config.command import command


@command("dashboard")
def main(config: dict[str, Any]) -> None:
    """Save the workspace, or write its specification where no server can be reached."""
    from kits.tracking.workspace import update_dashboard

    print(f"dashboard: {update_dashboard(config)}")


if __name__ == "__main__":
    main()
