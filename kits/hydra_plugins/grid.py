"""Hydra's own sweeper, which leaves no trace of a sweep that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from kits.hydra_plugins.trial_records import JOURNAL

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
MULTIRUN = "multirun.yaml"  # which Hydra writes before it composes a trial


class GridSweeper(Sweeper):
    """Runs a trial for every combination of the values, by Hydra's BasicSweeper.

    Args: see conf/hydra/sweeper/grid.yaml.
    """

    def __init__(self, **options: Any) -> None:
        # Not imported: Hydra loads its plugins anew when it looks for them.
        self.basic: Any = Plugins.instance().class_name_to_class[BASIC](**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Let Hydra make the launcher that the configuration names."""
        self.folder = Path(config.hydra.sweep.dir)
        self.basic.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all trials."""
        with no_trace_of_a_refusal(self.folder):
            return self.basic.sweep(arguments)


@contextmanager
def no_trace_of_a_refusal(folder: Path) -> Iterator[None]:
    """Leave the folder of a sweep that is refused before any trial has begun as it was."""
    there = {*folder.iterdir()} if folder.is_dir() else set()
    multirun = (folder / MULTIRUN).read_bytes() if folder / MULTIRUN in there else None
    made = [path for path in (folder / MULTIRUN, folder / JOURNAL, folder, *folder.parents) if not path.exists()]
    try:
        yield
    except Exception:
        if folder.is_dir() and {*folder.iterdir()} <= {*there, *made}:
            if multirun is not None:
                (folder / MULTIRUN).write_bytes(multirun)
            with suppress(OSError):  # something else lies in a folder above
                for path in made:
                    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise
