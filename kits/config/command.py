"""The entry of every command: help, the configuration by `hydra.main`, mistakes as one line."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from kits.config.conf_files import conf_dir, one_line
from kits.config.usage import explain_group, usage
from kits.core.errors import KitsError, printable
from kits.core.sharding import started_by_srun

# It takes the typed options of its command: `kits.config.schema.commands.Predict` of kits.predict, and so on.
Task = Callable[[Any], Any]
# Hydra's own variable: with it an exception leaves `hydra.main` instead of being printed there over several lines.
FULL_ERROR = "HYDRA_FULL_ERROR"


def command(name: str, *, instead: Callable[[list[str]], Any] | None = None) -> Callable[[Task], Callable[[], None]]:
    """Turn a task over typed options into an entry point for `conf/<name>.yaml`.

    Args:
        instead: gives the options for some command lines, and None for those that are composed from `conf`.
    """

    def decorate(task: Task) -> Callable[[], None]:
        def main() -> None:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, TextIOWrapper):  # a name that the terminal cannot write ends no run
                    stream.reconfigure(errors="backslashreplace")
            with mistakes_in_one_line(name):
                load_environment()
                arguments = sys.argv[1:]
                if answer := ask(name, task.__doc__, arguments):
                    print(answer, flush=True)
                    return
                several = read_flags(arguments).multirun
                given = instead(arguments) if instead and not several else None
                if given is not None:
                    task(given)
                    return
                launch(name, task, arguments, several=several)

        main.__doc__ = task.__doc__
        return main

    return decorate


@contextmanager
def mistakes_in_one_line(name: str) -> Iterator[None]:
    """End the process with a line on stderr; a bug shows its traceback too, which no user can mend."""
    try:
        yield
    except KitsError as error:
        print(f"kits.{name}: {error}", file=sys.stderr)
        gc.freeze()  # or Python would search all that was imported for garbage before it ends, a tenth of the time
        raise SystemExit(1) from None
    except BrokenPipeError:  # `--help | head`: what Python would still flush at its end has no reader either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(f"kits.{name}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        traceback.print_exc()
        what = f"unexpected {type(error).__name__}: {printable(one_line(error))}"
        print(f"kits.{name}: {what}; please report it with the command and the lines above", file=sys.stderr)
        raise SystemExit(1) from None


def load_environment() -> None:
    """Read `.env` of the working folder; what is already set in the environment wins.

    Raises:
        KitsError: it is no text, or the working folder is gone.
    """
    try:
        folder = Path.cwd()
    except FileNotFoundError as error:
        raise KitsError("the working folder is gone; go to one that exists") from error
    try:
        if (path := folder / ".env").exists():
            from dotenv import load_dotenv

            load_dotenv(path, override=False)
    except (OSError, ValueError) as error:
        raise KitsError(f".env of the working folder: cannot be read ({one_line(error)}); write it as UTF-8 text") from error


def ask(name: str, doc: str | None, arguments: list[str]) -> str | None:
    """Answer what needs no Hydra: --help, --help GROUP, and tab completion; None for all else."""
    given = [argument for argument in arguments if not argument.startswith("-")]
    if {"-h", "--help"} & set(arguments):
        return explain_group(given[0]) if given else usage(name, doc)
    if not {"-sc", "--shell-completion"} & set(arguments):
        return None
    from kits.config.completion import INSTALL, values

    if "query=bash" in given:  # Hydra answers too, with keys and choices
        print(*values(name, os.environ.get("COMP_LINE", "")))
    return INSTALL.get("".join(given))


def read_flags(arguments: list[str]) -> argparse.Namespace:
    """Read Hydra's flags, and refuse others, for which argparse would print its usage.

    Raises:
        KitsError: `--key=value` or another flag; the text says how the key is given.
    """
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise KitsError(f"{message}; --help names the flags")

    parser: argparse.ArgumentParser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    flags, others = parser.parse_known_args(arguments)
    for argument in others:
        key = argument.lstrip("-")
        if key == argument:
            raise KitsError(f"{argument}: stands behind a flag; give keys first and flags last")
        if "=" not in argument:
            raise KitsError(f"{argument}: no such flag; --help names them")
        agent = "of `wandb agent`: ${args_no_hyphens} in place of ${args}"
        raise KitsError(f"{argument}: keys have no dashes; give {key} ({agent})")
    return flags


def launch(name: str, task: Task, arguments: list[str], *, several: bool) -> None:
    """Let Hydra compose the configuration and call the task.

    Args:
        several: the command line has Hydra's --multirun.
    """
    import hydra
    from hydra._internal.hydra import Hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from kits.config.composing import explain, with_paths
    from kits.config.schema import check, resolved

    asked, begun = os.environ.get(FULL_ERROR), False

    def job(config: DictConfig) -> Any:
        nonlocal begun
        begun = True
        chosen = HydraConfig.get()
        several = chosen.mode == RunMode.MULTIRUN
        if not several:
            restore(asked)
        # Hydra tells of whatever leaves its job, but lets SystemExit pass. Of several runs its sweeper is to know how each ended.
        with nullcontext() if several else mistakes_in_one_line(name):
            composed = resolved(config)
            if several and "trainer" in composed and composed["trainer"]["devices"] != 1 and not started_by_srun():
                # Lightning starts the other ranks with this command line, and each would run the whole sweep.
                raise KitsError("trainer.devices: this launcher trains on one device a trial; leave hydra/launcher out for more")
            if "run_dir" in composed and (several or chosen.run.dir != "."):  # Hydra's words for it
                composed["run_dir"] = chosen.runtime.output_dir if several else chosen.run.dir
            return task(check(name, composed, chosen.runtime.choices))

    # Hydra reads the command line itself, and without quotes takes `input=/data/Müller (1)` for a function call.
    # With -m commas separate values, and whoever gives such paths quotes them.
    if not several:
        sys.argv[1:] = with_paths(name, arguments)
    os.environ[FULL_ERROR] = "1"
    entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(job)
    # Hydra would compose everything a first time to read `hydra.mode` alone, a fifth of the time until a mistake is told. It is
    # told the mode instead, and looks itself where the configuration has another: then it asserts, or finds values of a sweep.
    look, Hydra.get_mode = Hydra.get_mode, lambda *_, **__: None if several else RunMode.RUN  # type: ignore[method-assign]
    try:
        try:
            entry()
        except Exception as error:
            if begun or not (isinstance(error, AssertionError) or "Ambiguous value" in str(error)):
                raise
            Hydra.get_mode = look  # type: ignore[method-assign]
            entry()
    except KitsError:
        raise
    except Exception as error:
        if begun or asked == "1":
            raise
        raise KitsError(explain(error, name, arguments)) from error
    finally:
        Hydra.get_mode = look  # type: ignore[method-assign]
        restore(asked)


def restore(asked: str | None) -> None:
    """Give FULL_ERROR the value that the user has given it."""
    if asked is None:
        os.environ.pop(FULL_ERROR, None)
    else:
        os.environ[FULL_ERROR] = asked
