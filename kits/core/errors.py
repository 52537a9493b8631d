"""The one exception that a user's input may cause, and its one line."""


class KitsError(Exception):
    """A fault that the user can mend.

    Its text is one printable line, whatever names stand in it: the file or key, what is wrong, and what to do. Entry points print
    it and exit with 1.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


def printable(text: str) -> str:
    """Turn a text into one line that a terminal shows and does not obey.

    All that cannot be shown (control characters, a newline, no UTF-8) is spelled out.
    """
    return text if text.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def last_line(error: Exception) -> str:
    """Return the last line of an exception's text, where ITK names the cause; else its type.

    Behind "Reason:" ITK puts the last error of the system, whatever that was of.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if not line.startswith("Reason:")]
    return lines[-1] if lines else type(error).__name__
