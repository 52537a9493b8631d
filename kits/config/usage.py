"""`--help`: how a command is called, read from the comments of its file in conf/, so that no option is described twice."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kits.config.conf_files import choices_of, conf_dir, defaults_of, groups, nearest
from kits.core.errors import KitsError

WIDTH = 120
# The choice of a group that the group `stage` includes.
BY_STAGE = "(by stage)"
KEY = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^#]*?))?(?: *# (?P<comment>.*))?")
PLUGINS = ("hydra/launcher", "hydra/sweeper")
GROUP_FLAGS = {
    "--help GROUP": "what the choices of a group are, e.g. --help loss",
    "--help group=choice": "every key and its value under these choices, e.g. --help stage=coarse",
    "-m": "run once for each of several values, key=a,b,c (Hydra's --multirun); --help hydra/launcher and hydra/sweeper say how",
}
FLAGS = {
    "--cfg job": "print the configuration that would run, and stop",
    "-sc install=bash": 'tab completion: eval "$(python -m kits.NAME -sc install=bash)"; or install=zsh',
}


def usage(name: str, doc: str | None, defaults: Mapping[str, Any]) -> str:
    """The help of `python -m kits.<name>`.

    Args:
        name: of the file in conf/.
        doc: what the command does.
        defaults: the groups that it chooses from, each with its choice, `???`, BY_STAGE or None.
    """
    path = conf_dir() / f"{name}.yaml"
    head, own = read(path)
    calls = [line for line in head if line.startswith("python -m")]
    parts = [f"{'usage:' if call is calls[0] else '':<6} {call}" for call in calls]
    parts += ["", textwrap.fill(doc or "", WIDTH), *(line for line in head if line not in calls), ""]
    if own:
        parts += ["Keys of this command:", *table(dict(key_line(key, *told) for key, told in own.items())), ""]
    if defaults:
        parts += ["Groups (group=choice) and their choices; * is the default:", *table(group_lines(defaults)), ""]
        parts += [f"Every key of a choice can be given too, as group.key=value; they stand in {conf_dir()}", ""]
    parts += ["Flags:", *table(GROUP_FLAGS | FLAGS if defaults else FLAGS)]
    return "\n".join(parts)


def groups_of(name: str) -> dict[str, Any]:
    """The groups that a command chooses from: each with its choice, `???` where it needs one, None, or BY_STAGE."""
    chosen = defaults_of(conf_dir() / f"{name}.yaml")
    if "stage" in chosen:
        chosen |= dict.fromkeys(defaults_of(conf_dir() / "stage" / "coarse.yaml"), BY_STAGE)
    return chosen


def key_line(key: str, value: str, comment: str) -> tuple[str, str]:
    """A key with its default, and what it is for."""
    if value == "???":
        return f"{key}=", f"(needed) {comment}".strip()
    return f"{key}={value}", comment


def group_lines(defaults: Mapping[str, Any]) -> dict[str, str]:
    """By group its choices."""
    notes = {BY_STAGE: " (the stage chooses)", "???": " (needed, unless an experiment chooses it)"}
    return {
        group: ", ".join(f"{name}*" if name == choice else name for name in choices_of(group)) + notes.get(str(choice), "")
        for group, choice in defaults.items()
    }


def explain_group(group: str) -> str:
    """The choices of a group, each with the comment at the head of its file.

    Raises:
        KitsError: no such group.
    """
    names = choices_of(group) if group in groups() or group in PLUGINS else []
    if not names:
        raise KitsError(f"--help {group}: no such group{nearest(group, groups())}; take one of {', '.join(groups())}")
    lines = []
    for name in names:
        head, _ = read(conf_dir() / group / f"{name}.yaml")
        text = " ".join(line.strip() for line in head if not line.startswith("@package"))
        lines += [f"{group}={name}", textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines)


def read(path: Path) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The comment at the head of a YAML file, line by line, and by dotted key its value and the comment above and beside it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = [line.removeprefix("#").removeprefix(" ") for line in lines[:start]]
    own: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    names: list[str] = []
    for line in lines[start:]:
        match = KEY.fullmatch(line)
        if line.strip().startswith("#"):
            above.append(line.strip("# "))
        elif match is None or match["name"] == "defaults":
            above = []
        else:
            names = [*names[: len(match["indent"]) // 2], match["name"]]
            comment = " ".join([*above, match["comment"] or ""]).strip()
            if match["value"]:
                own[".".join(names)] = (match["value"].strip(), comment)
            above = []
    return head, own


def table(rows: Mapping[str, str]) -> list[str]:
    """Two columns, the second one wrapped."""
    width = min(28, max(map(len, rows)))
    lines = []
    for left, right in rows.items():
        wrapped = textwrap.wrap(right, WIDTH - width - 4) or [""]
        first = [f"  {left:<{width}}  {wrapped[0]}"] if len(left) <= width else [f"  {left}", f"  {'':<{width}}  {wrapped[0]}"]
        lines += [line.rstrip() for line in first] + [f"  {'':<{width}}  {line}" for line in wrapped[1:]]
    return lines
