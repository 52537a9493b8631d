"""Hydra's own sweeper, which leaves no trace of a sweep that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from kits.hydra_plugins.trial_records import no_trace_of_a_refusal


class GridSweeper(BasicSweeper):
    """Runs a trial for every combination of the values; see conf/hydra/sweeper/grid.yaml."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run all trials."""
        assert self.config is not None  # since `setup`
        with no_trace_of_a_refusal(Path(self.config.hydra.sweep.dir)):
            return super().sweep(arguments)
