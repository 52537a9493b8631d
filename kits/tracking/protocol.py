"""What every logger of a run can be told. Each keeps what its medium can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kits.runs.metrics_file import FolderLogger
from kits.tracking.cloud import Cloud

Rows = Sequence[Sequence[Any]]


class RunLog(FolderLogger):
    """A logger of one run folder. Its methods are called by the first process only; a medium leaves out what it cannot hold."""

    def log_images(self, name: str, images: Mapping[str, np.ndarray], step: int) -> None:
        """Pictures (H, W, 3) uint8 by case."""

    def log_clouds(self, name: str, clouds: Mapping[str, Cloud], step: int) -> None:
        """Points in 3D by case."""

    def log_table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """A table."""

    def log_confusion(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """Counts: true label, predicted label, voxels."""
        self.log_table(name, columns, rows, step)

    def log_files(self, kind: str, paths: Sequence[Path]) -> None:
        """Files of the run as one artifact of a kind."""
