"""The one exception that a user's input may cause."""


class KitsError(Exception):
    """A fault that the user can mend.

    Its text is one line: the file or key, what is wrong, and what to do. Entry points print it and exit with 1.
    """
