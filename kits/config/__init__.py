"""The configuration: conf/ composed by Hydra, held against the schema, errors in one line.

No torch here; any room above may import it.
"""

from kits.config.conf_files import choices_of, conf_dir, flat, groups, nearest, one_line, plain, require

__all__ = ["choices_of", "conf_dir", "flat", "groups", "nearest", "one_line", "plain", "require"]
