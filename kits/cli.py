"""What every entry point shares: Hydra's composition, and a user's mistakes as one line.

Hydra reports a mistyped key over several lines that end in advice to add it with `+`. So each command first composes
its configuration here, where the answer names the key and the nearest known one; only then does Hydra run the task.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kits.config import all_keys, nearest, one_line, plain
from kits.errors import KitsError

Task = Callable[[dict[str, Any]], None]


def conf_dir() -> Path:
    """The folder of YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "_conf"
    return inside if inside.is_dir() else package.parent / "conf"


def command(name: str) -> Callable[[Task], Callable[[], None]]:
    """Turn a task over a plain configuration into an entry point for `conf/<name>.yaml`."""

    def decorate(task: Task) -> Callable[[], None]:
        def main() -> None:
            try:
                load_environment()
                arguments = sys.argv[1:]
                # --help, --multirun and the like are Hydra's own; everything else is composed here first.
                if not any(argument.startswith("-") for argument in arguments):
                    compose(name, arguments)
                sys.argv[1:] = spelled_out(name, arguments)
                launch(name, task, sys.argv[1:])
            except KitsError as error:
                print(f"kits.{name}: {error}", file=sys.stderr)
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
    from hydra.errors import HydraException
    from omegaconf import DictConfig

    def job(config: DictConfig) -> None:
        # Hydra prints a traceback for whatever leaves its job, but lets SystemExit pass.
        try:
            task(plain(config))
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


def checked(name: str, overrides: list[str]) -> dict[str, Any]:
    """As `compose`."""
    return compose(name, overrides)


def compose(name: str, overrides: list[str]) -> dict[str, Any]:
    """The plain configuration of `conf/<name>.yaml` under these overrides.

    Raises:
        KitsError: an override cannot be parsed, names an unknown key or an unknown choice, or a mandatory value is missing.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    overrides = spelled_out(name, overrides)
    with composing():
        try:
            return plain(hydra.compose(name, overrides=overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise KitsError(explain(str(error), name, overrides)) from error


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


def explain(message: str, name: str, overrides: list[str]) -> str:
    """Hydra's message as one line that names the key, what is allowed and what to do."""
    unknown_key = re.search(r"Could not override '([^']+)'", message)
    if unknown_key:
        return f"{unknown_key[1]}: no such key{nearest(unknown_key[1], known_keys(name, overrides))}"
    choice = re.search(r"Could not find '([^'/]+)/([^']+)'", message)
    if choice:
        return f"{choice[1]}={choice[2]}: no such choice; take one of {', '.join(choices_of(choice[1]))}"
    group = re.search(r"You must specify '([^']+)', e\.g, use \S+=<OPTION>\s*Available options:\s*(.*)", message, re.DOTALL)
    if group:
        return f"{group[1]}: no value given; add {group[1]}=... with one of {', '.join(group[2].split())}"
    return one_line(message)


def choices_of(group: str) -> list[str]:
    """The names that a configuration group offers."""
    folder = conf_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def known_keys(name: str, overrides: list[str]) -> list[str]:
    """The keys that the command line could have meant: those of the configuration with only its group choices applied."""
    import hydra
    from omegaconf import OmegaConf

    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    choices = [override for override in overrides if override.partition("=")[0].lstrip("+") in groups]
    try:
        config = hydra.compose(name, overrides=choices)
    except Exception:  # the hint is optional: a second mistake must not hide the first
        return []
    return all_keys(OmegaConf.to_container(config, resolve=False))
