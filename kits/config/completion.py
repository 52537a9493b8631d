"""Tab completion: the script for a shell, and values of keys, which Hydra does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from kits.config.composing import choices_in
from kits.config.conf_files import choices_of, groups
from kits.config.schema import schemas_of
from kits.config.schema.base import text
from kits.config.schema.refusals import fields_of

# Hydra answers what can follow (`-sc query=bash`), but its own script asks `python file.py` only, not `python -m`. Bash splits
# words at `=`, so what stands before it is cut off; where nothing fits, -o default offers files, as for run_dir=.
COMPLETION = """_kits_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" words word found
    read -ra words <<< "$line"
    [[ "${words[1]}" == -m && "${words[2]}" == kits.* ]] || return
    word="${words[-1]}"
    [[ "$line" == *" " ]] && word=""
    found=$(COMP_LINE="python ${line#* -m }" "${words[0]}" -m "${words[2]}" -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    [[ "${COMPREPLY[*]}" == *[=./] ]] && compopt -o nospace 2> /dev/null
}
complete -o default -F _kits_complete python python3"""
INSTALL = {"install=bash": COMPLETION, "install=zsh": f"autoload -Uz bashcompinit && bashcompinit\n{COMPLETION}"}


def values(name: str, line: str) -> list[str]:
    """List how the last word of a command line can go on, where it is the beginning of KEY=VALUE.

    Of groups these are only the choices in folders, such as experiment=demo/coarse: Hydra itself lists the others.
    """
    *typed, word = line.split(" ")
    given, equals, _ = word.partition("=")
    key = given.lstrip("+")
    if not equals:
        return []
    if key in groups():
        return [f"{given}={choice}" for choice in choices_of(key) if "/" in choice]
    kinds = [kind for schema in schemas_of(name) for one, (kind, _) in fields_of(schema, choices_in(typed)) if one == key]
    return [f"{given}={value}" for value in dict.fromkeys(value for kind in kinds for value in enumerated(kind))]


def enumerated(kind: Any) -> Iterator[str]:
    """List the values of an annotation that can be listed: of enumerations, switches and null."""
    if get_origin(kind) is Literal:
        yield from map(text, get_args(kind))
    elif kind is bool:
        yield from ("true", "false")
    elif kind is type(None):
        yield "null"
    elif get_origin(kind) is not list:
        for one in get_args(kind):
            yield from enumerated(one)
