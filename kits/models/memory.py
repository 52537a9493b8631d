"""Memory of networks on a CPU."""

import ctypes
import sys

# glibc's malloc.h. Both values are C ints; nothing that a step allocates for itself is larger.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep what it frees; whether that worked, which it does on Linux with glibc only.

    By default glibc returns every large block to the system at once, and the next step gets it back page by page, zeroed. With
    feature maps of a hundred megabytes that is a third of a training step, and of a prediction, on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
