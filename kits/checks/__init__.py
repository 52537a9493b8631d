"""What is wrong with a composed configuration, told before torch or anything else that is slow is imported.

`keys` compares it with conf/ and with the rules of `rules`, key by key; `training` looks at what does not go together.
"""

from __future__ import annotations

from typing import Any

from kits.checks.keys import check_keys, check_values
from kits.checks.training import check_training


def check(name: str, config: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Hold the configuration of the command `name` against the rules.

    Args:
        config: plain.
        defaults: plain, what the same choices of the groups give when no value is overridden: its keys are all that there are.

    Raises:
        KitsError: the text names the key, what is wrong and what is allowed.
    """
    check_keys(config, defaults)
    check_values(config, defaults)
    if name == "train":
        check_training(config)
