"""What a library's exception says, in one line."""

from __future__ import annotations


def last_line(error: Exception) -> str:
    """The last line of an exception's text, which is where ITK names the cause; its type where it has no text."""
    text = str(error).strip()
    return text.splitlines()[-1].strip() if text else type(error).__name__
