"""Which GPUs each of several trials at once gets."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from kits.core.errors import KitsError


def deal(gpus: list[int | str] | None, jobs: int | None, trainer: dict[str, Any]) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES for each trial at once; None where there are none to deal out.

    Args:
        gpus: ids to deal out; None takes those that are visible.
        jobs: trials at once; None for as many as the GPUs take.
        trainer: the trials' own settings: `accelerator` and `devices`, the GPUs that each needs.

    Raises:
        KitsError: there are too few GPUs for so many trials.
    """
    ids = [] if trainer["accelerator"] == "cpu" else [str(each) for each in gpus] if gpus is not None else visible()
    if not ids:
        return [None] * (jobs or 1)
    each = trainer["devices"]
    if not isinstance(each, int) or each < 1:  # `auto`, -1 or a list of them: the trial takes what it finds
        if (jobs or 1) > 1:
            raise KitsError(f"sweep.jobs={jobs}: trials at once need a number of GPUs each; give trainer.devices=1")
        return [",".join(ids)]
    jobs = jobs or max(1, len(ids) // each)
    if jobs * each > len(ids):
        raise KitsError(
            f"sweep.jobs={jobs}: {len(ids)} GPUs are too few with trainer.devices={each}; "
            f"give sweep.jobs={max(1, len(ids) // each)}, or let trials share: sweep.gpus=[{','.join(ids * 2)}]"
        )
    return [",".join(ids[slot * each : (slot + 1) * each]) for slot in range(jobs)]


def visible() -> list[str]:
    """The ids of the GPUs that this process may use, without loading torch for it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
