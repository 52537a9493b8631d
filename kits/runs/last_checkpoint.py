"""Tell whether `last.ckpt` is as kits.train wrote it.

Lightning goes on with whatever it finds: without the state of its loops it would begin the training again, without that of a
callback it would forget the best score. So whatever was edited is refused; bytes that a disk has lost are found by the checksums
of the file (`kits.models.checkpoint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kits.core.errors import KitsError

# Where a checkpoint holds the state that Lightning does not know of, that of the data module (the place within an epoch), and the
# digest of all it holds.
STATE, PLACE, SEAL = "kits_run", "KitsDataModule", "kits_seal"
BATCHES = "epoch_loop.batch_progress"


def seal(content: Mapping[str, Any]) -> str:
    """Digest everything that a checkpoint holds but the digest itself."""
    total = blake2b(digest_size=16)

    def add(node: Any) -> None:
        if isinstance(node, Tensor):
            total.update(f"{node.dtype}{tuple(node.shape)}".encode())
            total.update(node.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(node, Mapping | list | tuple):
            total.update(f"({len(node)}".encode())
            for part in node.items() if isinstance(node, Mapping) else node:
                add(part)
        else:
            total.update(f"{node!r};".encode())

    add({key: value for key, value in content.items() if key != SEAL})
    return total.hexdigest()


def check_saved(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not hold all that its run goes on with, or not as it was written."""
    if STATE not in content:
        raise KitsError(f"{path}: holds no state to go on from; give resume= a folder whose {path.name} kits.train wrote")
    if content.get(SEAL) != seal(content):
        raise KitsError(f"{path}: damaged or edited; begin again with overwrite=true, or in another run_dir=DIR")
