"""The configuration: conf/ composed by Hydra, held against the schema, errors in one line.

No torch here; any room above may import it.
"""

from kits.config.conf_files import (
    all_keys,
    check_classes,
    check_whole,
    choices_of,
    conf_dir,
    groups,
    nearest,
    one_line,
    plain,
    require,
)

__all__ = [
    "all_keys",
    "check_classes",
    "check_whole",
    "choices_of",
    "conf_dir",
    "groups",
    "nearest",
    "one_line",
    "plain",
    "require",
]
