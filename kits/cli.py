"""What every entry point shares: help, the configuration, and a user's mistakes as one line.

Hydra reports a mistyped key over several lines that end in advice to add it with `+`. So each command first composes its
configuration by `kits.composing`, whose answer names the key and the nearest known one; only then does Hydra run the task.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from kits.completion import BEFORE, candidates, script
from kits.composing import checked, compose, explain, groups_of, sketch, spelled_out
from kits.config import conf_dir, plain
from kits.config.schema import check
from kits.errors import KitsError
from kits.usage import explain_group, usage

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
            check(name, resolved, HydraConfig.get().runtime.choices)
            task(resolved)
        except KitsError as error:
            print(f"kits.{name}: {error}", file=sys.stderr)
            raise SystemExit(1) from None

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)()
    except HydraException as error:
        raise KitsError(explain(str(error), name, arguments)) from error


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
