"""GPUs dealt out to trials that run at once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any

from kits.core.errors import KitsError


def deal(n_jobs: int | None, gpus: Sequence[int | str] | None, accelerator: str, devices: Any) -> list[str | None]:
    """Deal GPUs out to trials: CUDA_VISIBLE_DEVICES of each trial at once, None where there are none.

    Args:
        n_jobs: trials at once; None for as many as the GPUs take.
        gpus: ids to deal out; None takes those that are visible.
        accelerator, devices: the trials' own, of the group `trainer`.

    Raises:
        KitsError: there are too few GPUs for so many trials.
    """
    ids = [] if accelerator == "cpu" else [str(each) for each in gpus] if gpus is not None else visible_gpus()
    if not ids:
        return [None] * (n_jobs or 1)
    each = devices if isinstance(devices, int) and devices > 0 else len(ids)  # auto, -1 or a list: whatever there is
    n_jobs = n_jobs or max(1, len(ids) // each)
    if n_jobs > 1 and n_jobs * each > len(ids):
        raise KitsError(
            f"hydra.launcher.n_jobs={n_jobs}: {len(ids)} GPUs are too few with trainer.devices={devices}; give fewer of either, "
            f"or let trials share: hydra.launcher.gpus=[{','.join(ids * 2)}]"
        )
    return [",".join(ids[slot * each : (slot + 1) * each]) for slot in range(n_jobs)]


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that this process may use, without loading torch for it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
