"""The one exception that a user's input may cause."""


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
