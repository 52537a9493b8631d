"""`metrics.csv`, which a resumed run goes on with."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from kits.config import one_line
from kits.core.errors import KitsError
from kits.core.locking import open_own
from kits.core.plain_files import csv_text, read_numbers
from kits.io import write_text
from kits.runs.folder import METRICS

Row = Mapping[str, float | str]


class MetricsFile(Logger):
    """One row for every time that something is logged, in the file at once; tables in files of their own.

    Lightning's CSVLogger removes a file that is there already when it is made, and rewrites it in place where a column is new: a
    run that was killed could not go on from it.

    Args:
        folder: the run folder.
        kept: rows of the file that is there already to go on after; those behind them go.
    """

    def __init__(self, folder: Path, kept: int = 0) -> None:
        super().__init__()
        self.path = folder / METRICS
        self.kept = kept
        self._rows: list[Row] | None = None
        self._columns: list[str] = []

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    log_dir = save_dir

    @property
    def name(self) -> str:
        """None of its own: the file lies in the run folder itself."""
        return ""

    version = name

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write nothing: they stand in config.yaml."""

    @property
    def rows(self) -> list[Row]:
        """The rows that have been logged; the file is first touched here, when the training has begun."""
        if self._rows is None:
            self._rows = self._read() if self.kept else []
            self._write_all()
        return self._rows

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        row = {**metrics, "step": len(self.rows) if step is None else step}
        self.rows.append(row)
        if set(row) <= set(self._columns):
            with open(self.path, "a", encoding="utf-8", newline="", opener=open_own) as stream:
                csv.DictWriter(stream, self._columns, lineterminator="\n").writerow(row)
        else:
            self._write_all()

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Write `cases.csv` for `val/cases`; no file where there are no columns."""
        path = self.path.with_name(f"{key.rpartition('/')[2]}.csv")
        if columns:
            write_text(path, csv_text(columns, data))
        else:
            path.unlink(missing_ok=True)

    def _read(self) -> list[Row]:
        """Return the rows to keep; a cell without a value was no part of its row."""
        if not self.path.exists():
            return []
        try:
            rows = read_numbers(self.path)
        except (OSError, ValueError) as error:
            raise KitsError(f"{self.path}: cannot be read as what was logged ({one_line(error)}); move it away") from error
        if len(rows) < self.kept:
            raise KitsError(
                f"{self.path}: has {len(rows)} of the {self.kept} rows that were logged; put it back, or move it away"
            )
        return [*rows[: self.kept]]

    @rank_zero_only
    def _write_all(self) -> None:
        """Write the whole file anew, with the columns that the rows have."""
        rows = self._rows or []
        self._columns = sorted({name for row in rows for name in row})
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        write_text(self.path, csv_text(self._columns, ([row.get(name) for name in self._columns] for row in rows)))
