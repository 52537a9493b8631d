"""Tab completion of `python -m kits.NAME`: groups, their choices, keys, and the values that a key may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kits.config import all_keys, choices_of
from kits.config.schema.base import text
from kits.config.schema.telling import names_at
from kits.config.schema.training import Train

# Hydra's own script completes `python file.py`, but not `python -m`. Bash splits words at `=`, so what stands before it is cut
# off; where nothing fits, -o default offers files, as for run_dir=.
SCRIPT = """_kits_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" words word
    read -ra words <<< "$line"
    [[ "${words[1]}" == -m && "${words[2]}" == kits.* ]] || return
    word="${words[-1]}"
    [[ "$line" == *" " ]] && word=""
    if [[ "$word" == "${words[2]}" ]]; then
        COMPREPLY=($(compgen -W "COMMANDS" -- "$word"))
        return
    fi
    COMPREPLY=($(COMP_LINE="$line" "${words[0]}" -m "${words[2]}" -sc query=bash 2> /dev/null))
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    [[ "${COMPREPLY[*]}" == *[=.] ]] && compopt -o nospace 2> /dev/null
}
complete -o default -F _kits_complete python python3"""
BEFORE = {"bash": "", "zsh": "autoload -Uz bashcompinit && bashcompinit\n"}


def script(shell: str, commands: list[str]) -> str:
    """What the shell evaluates to get completion."""
    return BEFORE[shell] + SCRIPT.replace("COMMANDS", " ".join(f"kits.{command}" for command in commands))


def candidates(word: str, config: dict[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    """What `word`, as far as it is typed, may become.

    Args:
        config: the configuration under the groups that are chosen already, interpolations unresolved.
        chosen: the groups that this command has.
    """
    key, equals, value = word.partition("=")
    if equals:
        return sorted(f"{key}={one}" for one in values_of(key, config, chosen) if one.startswith(value))
    found = {f"{group}=" for group in chosen if group.startswith(key)}
    for known in all_keys(config):
        if known.startswith(key):
            level = ".".join(known.split(".")[: key.count(".") + 1])
            found.add(f"{level}." if isinstance(value_at(config, level), dict) else f"{level}=")
    return sorted(found)


def values_of(key: str, config: dict[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    """A group's choices, or what its rule allows by name, or the present value."""
    if key in chosen:
        return choices_of(key)
    if names := names_at(Train, key, config):
        return names
    present = value_at(config, key)
    if isinstance(present, bool):
        return ["true", "false"]
    return [] if present in (None, "???") or isinstance(present, dict) or "${" in str(present) else [text(present)]


def value_at(config: Any, key: str) -> Any:
    """The value of a dotted key, or None."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config
