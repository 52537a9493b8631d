"""What every entry point shares: Hydra's composition, and a user's mistakes as one line.

Hydra reports a mistyped key over several lines that end in advice to add it with `+`. So each command first composes
its configuration here, where the answer names the key and the nearest known one; only then does Hydra run the task.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from kits.checks import check
from kits.completion import BEFORE, candidates, script
from kits.config import all_keys, choices_of, conf_dir, defaults_of, nearest, one_line, plain
from kits.errors import KitsError
from kits.usage import BY_STAGE, explain_group, usage

Task = Callable[[dict[str, Any]], None]
MULTIRUN = ("-m", "--multirun")


def command(
    name: str, *, instead: Callable[[list[str]], dict[str, Any] | None] | None = None, multirun: str | None = None
) -> Callable[[Task], Callable[[], None]]:
    """Turn a task over a plain configuration into an entry point for `conf/<name>.yaml`.

    Args:
        instead: gives the whole configuration for some command lines, and None for those that are composed from `conf`.
        multirun: the module whose `sweep(overrides)`, with `conf/sweep.yaml`, answers to -m and --multirun in place of Hydra.
    """

    def decorate(task: Task) -> Callable[[], None]:
        def main() -> None:
            try:
                load_environment()
                arguments = sys.argv[1:]
                overrides = [argument for argument in arguments if argument not in MULTIRUN]
                several = multirun and overrides != arguments
                if answer := ask("sweep" if several else name, task.__doc__, arguments):
                    print(answer, flush=True)
                    return
                if several and not any(override.startswith("-") for override in overrides):
                    import_module(str(multirun)).sweep(overrides)
                    return
                given = instead(arguments) if instead else None
                if given is not None:
                    task(given)
                    return
                # --cfg and the like are Hydra's own; everything else is composed and checked here first.
                if not any(argument.startswith("-") for argument in arguments):
                    config = checked(name, arguments)
                    if multirun and "sweep" in config:
                        again = f"python -m kits.{name} -m {shlex.join(arguments)}"
                        raise KitsError(f"sweep: is for several runs; add -m, as in {again}")
                sys.argv[1:] = spelled_out(name, arguments)
                launch(name, task, sys.argv[1:])
            except KitsError as error:
                print(f"kits.{name}: {error}", file=sys.stderr)
                raise SystemExit(1) from None
            except BrokenPipeError:  # `--help | head`: what Python would still flush at its end has no reader either
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(1) from None
            except KeyboardInterrupt:
                print(f"kits.{name}: interrupted", file=sys.stderr)
                raise SystemExit(130) from None

        main.__doc__ = task.__doc__
        return main

    return decorate


def load_environment() -> None:
    """Read `.env` of the working folder; what is already set in the environment wins."""
    from dotenv import load_dotenv

    load_dotenv(Path.cwd() / ".env", override=False)


def launch(name: str, task: Task, arguments: list[str]) -> None:
    """Let Hydra parse the command line and call the task.

    Raises:
        KitsError: the configuration cannot be composed.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig

    def job(config: DictConfig) -> None:
        # Hydra prints a traceback for whatever leaves its job, but lets SystemExit pass.
        try:
            resolved = plain(config)
            check(name, resolved, defaults(name, HydraConfig.get().runtime.choices))
            task(resolved)
        except KitsError as error:
            print(f"kits.{name}: {error}", file=sys.stderr)
            raise SystemExit(1) from None

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)()
    except HydraException as error:
        raise KitsError(explain(str(error), name, arguments)) from error


@contextmanager
def composing() -> Iterator[None]:
    """Where Hydra composes; inside its own job, where it is ready already, too."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            yield


def compose(name: str, overrides: list[str]) -> dict[str, Any]:
    """The plain configuration of `conf/<name>.yaml` under these overrides.

    Raises:
        KitsError: an override cannot be parsed, names an unknown key or an unknown choice, or a mandatory value is missing.
    """
    return with_choices(name, overrides)[0]


def checked(name: str, overrides: list[str]) -> dict[str, Any]:
    """As `compose`, and what is wrong with the configuration told as far as it can be before the data are seen.

    Raises:
        KitsError: also where a key is unknown, a value none that its key may have, or values do not go together.
    """
    config, choices = with_choices(name, overrides)
    check(name, config, defaults(name, choices))
    return config


def with_choices(name: str, overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain configuration, and by group what was chosen. Raises KitsError as `compose`."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import flag_override
    from omegaconf.errors import OmegaConfBaseException

    overrides = spelled_out(name, overrides)
    check_readable(name, overrides)
    with composing():
        try:
            config = hydra.compose(name, overrides=overrides, return_hydra_config=True)
            choices = dict(config.hydra.runtime.choices)
            with flag_override(config, ["struct", "readonly"], False):
                del config["hydra"]
            return plain(config), choices
        except (HydraException, OmegaConfBaseException) as error:
            raise KitsError(explain(str(error), name, overrides)) from error


def defaults(name: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that these choices of the groups give by themselves, plain, `???` where a value is needed.

    An experiment has no keys of its own: it chooses from the groups, and what it misspells must not pass as a key.
    """
    own = (group for group in groups_of(name) if group != "experiment" and choices.get(group) is not None)
    return unchanged(name, tuple(f"{group}={choices[group]}" for group in own))


@cache
def unchanged(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """As `compose`, with `???` left as it is; composed once, because a command asks again and its answer is only read."""
    import hydra
    from omegaconf import OmegaConf

    with composing():
        config = hydra.compose(name, overrides=list(overrides))
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def ask(name: str, doc: str | None, arguments: list[str]) -> str | None:
    """The answer to a question that runs nothing: --help, or tab completion; None where there is none.

    Raises:
        KitsError: help for a group, or completion for a shell, that there is not.
    """
    given = [argument for argument in arguments if not argument.startswith("-")]
    if {"-h", "--help"} & set(arguments):
        if not given:
            return usage(name, doc, groups_of(name))
        if "=" not in given[0]:
            return explain_group(given[0])
        from omegaconf import OmegaConf

        compose(name, given)
        return OmegaConf.to_yaml(OmegaConf.create(sketch(name, given))).rstrip()
    if not {"-sc", "--shell-completion"} & set(arguments):
        return None
    todo, _, shell = "".join(given).partition("=")
    if shell not in BEFORE or todo not in ("install", "query"):
        raise KitsError(f"-sc {' '.join(given)}: give install=... with one of {', '.join(BEFORE)}")
    if todo == "install":
        return script(shell, commands())
    line = os.environ.get("COMP_LINE", "")
    words = line.split()[3:]  # python -m kits.NAME
    word = words.pop() if words and not line.endswith(" ") else ""
    return "\n".join(candidates(word, sketch(name, words), groups_of(name))) or " "


def commands() -> list[str]:
    """What can follow `python -m kits.`: the files of conf/, and the measurements under one name; sweeps are `train -m`."""
    files = {path.stem for path in conf_dir().glob("*.yaml")} - {"base", "sweep"}
    return sorted({"bench" if name.startswith("bench_") else name for name in files})


def spelled_out(name: str, overrides: list[str]) -> list[str]:
    """`split=X` as `split.source=X` for a command that takes a file there.

    Other commands choose from the group of that name, and Hydra looks for X in the group whichever command it is.
    """
    from omegaconf import OmegaConf

    here = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    assert isinstance(here, dict)
    short = {key for key, value in here.items() if isinstance(value, dict) and "source" in value}
    parts = [override.partition("=") for override in overrides]
    return [f"{key}.source={value}" if equals and key in short else f"{key}{equals}{value}" for key, equals, value in parts]


def check_readable(name: str, overrides: list[str]) -> None:
    """Raise KitsError where an override is none, or gives several values to a command that takes one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
        except HydraException:
            parsed = None
        if parsed is None or not parsed.key_or_group:
            raise KitsError(f"{override}: cannot be read; give key=value, and quote what is no plain word: \"key='a text'\"")
        if parsed.is_sweep_override():
            again = f"; for a training with each: python -m kits.train -m {shlex.join(overrides)}" if name == "train" else ""
            raise KitsError(f"{override}: several values where one is taken; a list has brackets, key=[a,b]{again}")


def explain(message: str, name: str, overrides: list[str]) -> str:
    """Hydra's message as one line that names the key, what is allowed and what to do."""
    unknown_key = re.search(r"Could not override '([^']+)'", message)
    if unknown_key:
        return f"{unknown_key[1]}: no such key{nearest(unknown_key[1], all_keys(sketch(name, overrides)))}"
    choice = re.search(r"Could not find '([^'/]+)/([^']+)'", message)
    if choice:
        return f"{choice[1]}={choice[2]}: no such choice; take one of {', '.join(choices_of(choice[1]))}"
    group = re.search(r"You must specify '([^']+)', e\.g,.*Available options:\s*(.*)", message, re.DOTALL)
    if group:
        return f"{group[1]}: no value given; add {group[1]}=... with one of {', '.join(group[2].split())}"
    return one_line(message)


def groups_of(name: str) -> dict[str, Any]:
    """The groups that a command chooses from: each with its choice, `???` where it needs one, None, or BY_STAGE."""
    chosen = defaults_of(conf_dir() / f"{name}.yaml")
    if "stage" in chosen:
        chosen |= dict.fromkeys(defaults_of(conf_dir() / "stage" / "coarse.yaml"), BY_STAGE)
    return chosen


def sketch(name: str, overrides: list[str]) -> dict[str, Any]:
    """The configuration with only the group choices applied, and where a group needs one its first: nothing is resolved.

    Empty where a choice is unknown: what asks for it is optional, and a second mistake must not hide the first.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    chosen = groups_of(name)
    given = [override for override in overrides if override.partition("=")[0].lstrip("+") in chosen]
    named = {override.partition("=")[0] for override in given}
    needed = [f"{group}={choices_of(group)[0]}" for group, choice in chosen.items() if choice == "???" and group not in named]
    try:
        with composing():
            config = hydra.compose(name, overrides=[*([] if "experiment" in named else needed), *given])
    except (HydraException, OmegaConfBaseException):
        return {}
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
