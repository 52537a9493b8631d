"""Networks as .safetensors files, whole or in half precision: nothing in them can run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kits.config.schema.exported import Exported
from kits.core.errors import KitsError
from kits.core.plain_files import misfit
from kits.models.settings import DIGEST, METADATA, edited, to_plain


def to_bytes(network: nn.Module, settings: Exported, *, half: bool) -> bytes:
    """Write a network's weights, halved to 16 bits or as they are, and its settings."""
    kept = to_plain(settings, model=True)
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    return save(weights, {METADATA: json.dumps({**kept, DIGEST: digest_of(weights, kept)})})


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the configuration and the weights, widened again, of a file that kits.export wrote.

    Raises:
        KitsError: no such file, or another one.
    """
    if not path.is_file():
        raise KitsError(f"{path}: no such file; python -m kits.export format=safetensors writes one")
    try:
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get(METADATA, "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise KitsError(f"{path}: no .safetensors file, or damaged ({error}); give one that kits.export wrote") from error
    if config is None:
        raise KitsError(f"{path}: of another program; give one that kits.export wrote")
    if wrong := misfit(config, {"kits_format": int, "stage": str, "model": dict}, "its configuration"):
        raise edited(path, wrong)
    if config.pop(DIGEST, None) != digest_of(weights, config):
        raise edited(path, "its SHA-256 is not the one that was written")
    return config, {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def digest_of(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """Digest (SHA-256) a configuration and weights as they are stored."""
    content = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(weights):
        content.update(f"{name} {weights[name].dtype} {list(weights[name].shape)}".encode())
        content.update(weights[name].numpy().tobytes())
    return content.hexdigest()
