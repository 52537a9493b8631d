"""What a library's exception says, in one line."""

from __future__ import annotations


def last_line(error: Exception) -> str:
    """The last line of an exception's text, which is where ITK names the cause; its type where it has no text.

    Behind "Reason:" ITK puts the last error of the system, whatever that was of.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if not line.startswith("Reason:")]
    return lines[-1] if lines else type(error).__name__
