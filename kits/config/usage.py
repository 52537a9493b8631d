"""`--help`: how a command is called, read from the comments of its file in conf/.

So no option is described twice.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kits.config.conf_files import choices_of, conf_dir, groups, nearest
from kits.core.errors import KitsError

WIDTH = 120
# The choice of a group that the group `stage` includes.
BY_STAGE = "(by stage)"
NOTES = {BY_STAGE: " (the stage chooses)", "???": " (needed, unless an experiment chooses it)"}
KEY = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^#]*?))?(?: *# (?P<comment>.*))?")
PLUGINS = ("hydra/launcher", "hydra/sweeper")
GROUP_FLAGS = {
    "--help GROUP": "what the choices of a group are, e.g. --help loss",
    "-m": "run once for each of several values, key=a,b,c (Hydra's --multirun); --help hydra/launcher and hydra/sweeper say how",
}
FLAGS = {
    "--cfg job": "print the configuration that would run, and stop; behind the keys, as in stage=coarse --cfg job",
    "-sc install=bash": 'tab completion: eval "$(python -m kits.NAME -sc install=bash)"; or install=zsh',
    "--hydra-help": "Hydra's other flags",
}


def usage(name: str, doc: str | None) -> str:
    """Write the help of `python -m kits.<name>`, of which `doc` says what it does."""
    head, own = read(conf_dir() / f"{name}.yaml")
    chosen = groups_of(name)
    calls = [line for line in head if line.startswith("python -m")]
    parts = [f"{'usage:' if call is calls[0] else '':<6} {call}" for call in calls]
    parts += ["", textwrap.fill(" ".join((doc or "").split()), WIDTH), *(line for line in head if line not in calls), ""]
    if own:
        keys = {
            f"{key}=" if value == "???" else f"{key}={value}": f"(needed) {comment}".strip() if value == "???" else comment
            for key, (value, comment) in own.items()
        }
        parts += ["Keys of this command:", *table(keys), ""]
    if chosen:
        lines = {
            group: ", ".join(f"{one}*" if one == choice else one for one in choices_of(group)) + NOTES.get(str(choice), "")
            for group, choice in chosen.items()
        }
        parts += ["Groups (group=choice) and their choices; * is the default:", *table(lines), ""]
        parts += [f"Every key of a choice can be given too, as group.key=value; they stand in {conf_dir()}", ""]
    parts += ["Flags:", *table(GROUP_FLAGS | FLAGS if chosen else FLAGS)]
    return "\n".join(parts)


def groups_of(name: str) -> dict[str, Any]:
    """Find the groups that a command chooses from, each with its choice: a name, `???`, None or BY_STAGE."""
    chosen: dict[str, Any] = {}
    for entry in yaml.safe_load((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]:
        if entry == "_self_":
            continue
        if isinstance(entry, str):
            chosen |= groups_of(entry)
            continue
        for key, choice in entry.items():
            group = key.removeprefix("override ").lstrip("/")
            if group in groups():
                chosen[group] = choice
    return chosen | dict.fromkeys(groups_of("stage/coarse"), BY_STAGE) if "stage" in chosen else chosen


def explain_group(group: str) -> str:
    """List the choices of a group, each with the comment at the head of its file."""
    names = choices_of(group) if group in groups() or group in PLUGINS else []
    if not names:
        raise KitsError(f"--help {group}: no such group{nearest(group, groups())}; take one of {', '.join(groups())}")
    lines = []
    for name in names:
        head, _ = read(conf_dir() / group / f"{name}.yaml")
        text = " ".join(line.strip() for line in head if not line.startswith("@package"))
        lines += [f"{group}={name}", textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    if group == "model":
        from kits.config.plug_ins import KEYS, plug_ins  # which no other help needs

        for group, key in KEYS.items():
            lines += [f"{key}={name}: plug-in {point.value}" for name, point in plug_ins(group).items()]
    return "\n".join(lines)


def read(path: Path) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Read a YAML file's comment at its head, and by dotted key its value and the comments at the key."""
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
            continue
        if match is not None and match["name"] != "defaults":
            names = [*names[: len(match["indent"]) // 2], match["name"]]
            if match["value"]:
                own[".".join(names)] = (match["value"].strip(), " ".join([*above, match["comment"] or ""]).strip())
        above = []
    return head, own


def table(rows: Mapping[str, str]) -> list[str]:
    """Lay out two columns, the second one wrapped."""
    width = min(28, max(map(len, rows)))
    lines = []
    for left, right in rows.items():
        first, *others = textwrap.wrap(right, WIDTH - width - 4) or [""]
        lines += [f"  {left:<{width}}  {first}"] if len(left) <= width else [f"  {left}", f"  {'':<{width}}  {first}"]
        lines += [f"  {'':<{width}}  {line}" for line in others]
    return [line.rstrip() for line in lines]
