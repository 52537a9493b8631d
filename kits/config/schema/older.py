"""The meaning of configurations that were written before there was such a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OLDER: dict[str, dict[str, dict[str, Any]]] = {
    "coarse": {"data": {"labels": None}, "network": {"reach": None}, "roi": {"rank": "size"}},
    "fine": {"data": {"labels": None}, "network": {"reach": None}, "inference": {"tumor_confidence": None}},
}


def as_meant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a configuration, a run's or one beside weights, means by the keys that it lacks."""
    meant = OLDER.get(config.get("stage", ""), {})
    return {
        **config,
        **{group: {**keys, **config[group]} for group, keys in meant.items() if isinstance(config.get(group), dict)},
    }
