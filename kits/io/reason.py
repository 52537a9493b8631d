"""One line from a library's exception."""

from __future__ import annotations


def last_line(error: Exception) -> str:
    """Return the last line of an exception's text, where ITK names the cause; else its type.

    Behind "Reason:" ITK puts the last error of the system, whatever that was of.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if not line.startswith("Reason:")]
    return lines[-1] if lines else type(error).__name__
