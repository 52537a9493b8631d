"""Findings of the validation of a case: rows of one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kits.config import one_line
from kits.core.errors import printable

ERROR, WARNING = "error", "warning"
COLUMNS = ("case", "severity", "finding", "what to do")
SHOWN = 30


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error: the case cannot train) or odd (warning) with a case."""

    case: str
    severity: str
    finding: str
    remedy: str

    def __str__(self) -> str:
        return printable(f"{self.case}: {self.finding}; {self.remedy}")

    @classmethod
    def from_error(cls, case: str, error: Exception) -> Finding:
        """Turn a reader's message, `what is wrong; what to do`, into a finding."""
        what, _, remedy = one_line(error).rpartition("; ")
        return cls(case, ERROR, what or remedy, remedy if what else "mend the file or leave the case out with data.exclude")

    @classmethod
    def unexpected(cls, case: str, doing: str, error: Exception) -> Finding:
        """Turn an exception that nobody foresaw into a finding: the others go on."""
        what = f"{doing} failed ({type(error).__name__}: {one_line(error)})"
        return cls(case, ERROR, what, "download the case again; if that does not help, report this as a bug")


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """List the findings that keep a case out."""
    return [finding for finding in findings if finding.severity == ERROR]


def table(findings: Sequence[Finding], path: Path) -> str:
    """Return the table for the eye, errors first, at most SHOWN rows."""
    rows = sorted(findings, key=lambda row: (row.severity != ERROR, row.case))
    lines = [printable(f"{row.case:<12} {row.severity:<8} {row.finding}; {row.remedy}") for row in rows[:SHOWN]]
    more = f"{len(rows) - SHOWN} more in " if len(rows) > SHOWN else "also in "
    return "\n".join([*lines, f"({more}{path})"])
