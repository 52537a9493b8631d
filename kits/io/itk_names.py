"""Names that ITK can open: UTF-8, and with an ending in lower case that fits the content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def names_for_itk(paths: Sequence[Path], ending: str | None = None) -> Iterator[list[str]]:
    """Yield these paths, or links with names that ITK can open, which are gone after the block.

    Args:
        ending: what all names must end in, in this case; None where it does not matter.
    """
    if all(is_utf8(str(path)) and path.name.endswith(ending or "") for path in paths):
        yield [str(path) for path in paths]
        return
    with TemporaryDirectory() as folder:
        links = []
        for number, path in enumerate(paths):
            link = Path(folder) / str(number)
            if is_utf8(path.name) and not ending:  # through its folder: a header may name files beside it
                link.symlink_to(path.parent.absolute())
                link = link / path.name
            else:
                link = link.with_name(f"{number}{ending or ''.join(path.suffixes[-2:]).lower()}")
                link.symlink_to(path.absolute())
            links.append(str(link))
        yield links


def is_utf8(text: str) -> bool:
    """Tell whether a name that the system gave is text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
