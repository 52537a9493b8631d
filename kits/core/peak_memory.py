"""The peak memory of a process, since its start or since a moment."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# Linux: writing 5 sets the peak of resident memory, VmHWM, back to what is resident now (proc(5)).
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_MIB = 1 << 20


def reset_peaks(device: Any) -> None:
    """Begin to look for a new peak, on a GPU too."""
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="utf-8")
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: Any) -> dict[str, int]:
    """Return the peak memory since `reset_peaks` in MiB, of the process and of the GPU that it uses.

    Where the system cannot set its peak back (macOS) it is that of the process since its start.
    """
    found = {"process_mib": peak_bytes() // _MIB}
    if device.type == "cuda":
        import torch

        found["gpu_mib"] = int(torch.cuda.max_memory_allocated(device)) // _MIB
    return found


def peak_bytes(*, children: bool = False) -> int:
    """Return the peak resident bytes of this process, or of the largest child that it waited for."""
    if not children:
        with suppress(OSError):  # on Linux not from getrusage, which counts what the parent had before exec
            for line in _STATUS.read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss * unit
