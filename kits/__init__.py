"""Two-stage segmentation of kidneys and kidney tumors in CT: coarse on the whole, fine on ROIs.

What Python may call is imported from `kits.api` when it is asked for.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kits.api import load, measure, read, save, show

__all__ = ["__version__", "load", "measure", "read", "save", "show"]
# No library tells its makers what it is used for, unless its user says so; most look once, when they are imported.
for _switch, _off in {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: connects to a collector, and writes ids of the device under the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: would ask the public hub beside a mirror
    "WANDB_ERROR_REPORTING": "false",  # wandb: sends its own errors
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_switch, _off)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `kits.read` and its like when they are asked for.

    Whoever only wants a module of the package does not wait for their libraries.
    """
    if name in {"load", "measure", "read", "save", "show"}:
        return getattr(import_module("kits.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
