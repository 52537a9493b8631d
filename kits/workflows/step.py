"""Steps: commands of the project in processes, run again only where their origins changed.

A step leaves a record, `steps/NAME.json`: its settings, a digest of each of its inputs, and a digest of its own that the steps
after it have among their inputs. So what changes runs again, and whatever comes after it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kits.config import flat
from kits.config.composing import with_newer_keys
from kits.config.schema.workflow import Workflow
from kits.core.errors import KitsError
from kits.core.locking import sole_user
from kits.core.plain_files import read_object
from kits.data.cache import digest, file_digest
from kits.io import write_json
from kits.runs.folder import CONFIG, MANIFEST, checkpoints, read_manifest

RECORD = {"settings": {str: Any}, "inputs": {str: str}, "digest": str | None, "outputs": [str]}
# Keys that name a place, which the digests of the inputs stand for.
PLACES = ["data.root", "data.cache", "data.boxes", "run_dir", "coarse", "fine", "input", "prediction", "image", "truth", "output"]
PLACES += ["split_file", "data.split.renew", "split.renew"]
# Keys that say how fast, on what device, and what is logged; the result is the same.
MEANS = ["workers", "data.workers", "data.loader_workers", "device", "trainer.accelerator", "shard", "shards", "logger"]
MEANS += ["overwrite", "resume", "callbacks.checkpoint"]
NO_SETTINGS = tuple(f"{key}." for key in [*PLACES, *MEANS])


@dataclass(frozen=True)
class Step:
    """`python -m kits.<command> <arguments>`, what it comes from and what it leaves.

    Attributes:
        name: unique in a plan; the record's name too.
        arguments: overrides, as they are typed.
        config: the plain configuration that they give.
        inputs: files, which count by content, and folders of source data, which count by names, sizes and times.
        after: the steps whose results it reads.
        outputs: files that it leaves; the name of the last part may be a pattern.
    """

    name: str
    command: str
    arguments: Sequence[str]
    config: Mapping[str, Any]
    inputs: Mapping[str, Path]
    after: Sequence[str]
    outputs: Sequence[Path]


@dataclass(frozen=True)
class Runner:
    """Runs the steps of one plan in their order.

    Attributes:
        output: the plan's folder; the records lie in `steps/` there.
        overwrite: every step runs again, whatever its record says.
    """

    output: Path
    overwrite: bool

    def run(self, step: Step) -> bool:
        """Run a step unless it is up to date, and say which and why; whether it ran.

        Raises:
            KitsError: it fails.
            SystemExit: this process was told to end.
        """
        before = self.record(step.name)
        now: dict[str, Any] = {
            # With a dot behind it a key begins with each of the nodes that it is or lies below.
            "settings": {key: value for key, value in flat(step.config).items() if not f"{key}.".startswith(NO_SETTINGS)},
            "inputs": {name: _digest_of(path, self.output) for name, path in step.inputs.items()}
            | {name: str(self.record(name).get("digest")) for name in step.after},
        }
        told = [(_settings_of(before, step, now["settings"]), now["settings"]), (before.get("inputs", {}), now["inputs"])]
        changed = [key for then, new in told for key in {**then, **new} if then.get(key) != new.get(key)]
        lost = next((name for name in before.get("outputs", ()) if not (self.output / name).exists()), None)
        again = False
        if self.overwrite:
            again, why = True, "runs again, because of overwrite=true"
        elif not before:
            why = "runs"
        elif changed:
            some = ", ".join(changed[:3]) + f" and {len(changed) - 3} more" if len(changed) > 3 else " and ".join(changed)
            again, why = True, f"runs again, because {some} changed"
        elif before["digest"] is None:
            why = "goes on, because it was interrupted"
        elif lost:
            again, why = True, f"runs again, because {lost} is gone"
        else:
            print(f"{step.name}: up to date", flush=True)
            return False
        print(f"{step.name}: {why}", flush=True)

        arguments: list[str] | None = [*step.arguments, *(["overwrite=true"] if again and "overwrite" in step.config else [])]
        path, begun = self.output / "steps" / f"{step.name}.json", bool(before)
        if step.command == "train":
            run = Path(step.config["run_dir"])
            if again:  # if the new run is killed early, it must not go on with the old one
                for name in (CONFIG, MANIFEST):
                    (run / name).unlink(missing_ok=True)
            elif begun and (read_manifest(run) or {}).get("finished"):
                arguments = None  # only its record lacks
            elif begun:  # without its configuration it was killed before it had written that
                arguments = [f"resume={run}"] if (run / CONFIG).is_file() else [*step.arguments, "overwrite=true"]
            begun = begun or again or not checkpoints(run)
        else:
            begun = True
        if begun:  # a run that someone trained by hand leaves no record, so that kits.train refuses to overwrite it
            write_json(path, {**now, "digest": None, "outputs": []})
        if arguments is not None:
            try:
                run_process(step.command, arguments)
            except KitsError as error:
                raise KitsError(f"{step.name}: {error}; the same command goes on from there") from error
        files = [file for path in step.outputs for file in sorted(path.parent.glob(path.name))]
        made = [os.path.relpath(file, self.output) for file in files]
        # With the time: what ran again may have made something else of the same inputs.
        write_json(path, {**now, "digest": digest([now, time.time_ns()]), "outputs": made})
        return True

    def record(self, name: str) -> dict[str, Any]:
        """Read the record of a step; empty where there is none that can be read."""
        return read_object(self.output / "steps" / f"{name}.json", RECORD) or {}


def run_steps(steps: Iterable[Step], options: Workflow, work: str) -> list[str]:
    """Run the steps that are not up to date, alone in the output folder, and name them."""
    output = Path(options.output)
    with sole_user(output, lock=output / "steps" / ".lock", key="output", work=work):
        runner = Runner(output, options.overwrite)
        return [step.name for step in steps if runner.run(step)]


def _settings_of(record: Mapping[str, Any], step: Step, now: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of a step's record, with what it means by keys that are newer than it."""
    settings: dict[str, Any] = record.get("settings", {})
    newer = set(now) - set(settings) if record else set()
    if not newer:
        return settings
    meant = flat(with_newer_keys(step.command, _without(step.config, newer)))
    return {**settings, **{key: meant.get(key) for key in newer}}


def _without(config: Mapping[str, Any], keys: Collection[str], above: str = "") -> dict[str, Any]:
    """Take dotted keys out of a nested configuration."""
    return {
        key: _without(value, keys, f"{above}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{above}{key}" not in keys
    }


def _digest_of(path: Path, output: Path) -> str:
    """Digest a file, or the list of a folder of source data (tens of GB), hidden files and results aside."""
    if path.is_file():
        return file_digest(path)
    listed = []
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if not hidden and not (path in output.parents and file.is_relative_to(output)) and file.is_file():
            status = file.stat()
            listed.append([str(file.relative_to(path)), status.st_size, status.st_mtime_ns])
    return digest(listed)


def run_process(command: str, arguments: Sequence[str]) -> None:
    """Print one command as a reader would type it, run it with this interpreter, and wait for its end.

    A training saves what it has when it is asked to end: a signal to end is passed on to it, and it is waited for.

    Raises:
        KitsError: it fails.
        SystemExit: this process was told to end, with the shell's code, 128 + signal.
    """
    print(f"\n$ python -m kits.{command} {shlex.join(arguments)}", flush=True)
    began = time.monotonic()
    signals: list[int] = []
    process = subprocess.Popen([sys.executable, "-m", f"kits.{command}", *arguments])

    def pass_on(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if number == signal.SIGTERM:  # Ctrl-C reaches every process of a terminal by itself
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        print(f"{signal.Signals(signals[0]).name} during kits.{command}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(128 + signals[0])
    if code:
        raise KitsError(f"the step kits.{command} ended with exit code {code}; what it said stands above")
    print(f"  [{time.monotonic() - began:.0f} s]", flush=True)
