"""Two-stage segmentation of kidneys and kidney tumors in CT: coarse on the whole volume, fine on the regions of interest."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kits.api import load, read, save, show

__all__ = ["__version__", "load", "read", "save", "show"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`kits.read` and its like, whose libraries nobody waits for who only wants a module of the package."""
    if name in {"load", "read", "save", "show"}:
        return getattr(import_module("kits.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
