"""Steps with their stamps: what is up to date is skipped, what was interrupted goes on, what has changed runs again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kits.core.errors import KitsError
from kits.runs.folder import CONFIG, MANIFEST, holds_run, read_manifest
from kits.workflows.stamps import (
    AGAIN,
    BEGIN,
    GO_ON,
    SKIP,
    Stamp,
    Verdict,
    fingerprint,
    judge,
    read_stamp,
    settings_of,
    write_stamp,
)
from kits.workflows.step import Step, run_process


@dataclass(frozen=True)
class Runner:
    """Runs the steps of one plan.

    Attributes:
        output: the plan's folder; the stamps lie in `steps/` there.
        overwrite: every step runs again, whatever the stamps say.
    """

    output: Path
    overwrite: bool

    def run(self, step: Step) -> bool:
        """Run a step unless it is up to date, and say which and why; whether it ran.

        Raises:
            KitsError: it fails.
            SystemExit: this process was told to end.
        """
        path = self.output / "steps" / f"{step.name}.json"
        inputs = self._fingerprints(step.inputs)
        settings = json.loads(json.dumps(settings_of(step.config)))  # as a stamp gives them back: tuples are lists
        verdict = judge(read_stamp(path), settings, inputs, self._fingerprints(step.outputs))
        if self.overwrite:
            verdict = Verdict(AGAIN, "runs again, because of overwrite=true")
        print(f"{step.name}: {verdict.why}", flush=True)
        if verdict.todo == SKIP:
            return False
        if verdict.todo == AGAIN:
            forget_run(step)
        arguments = arguments_of(step, verdict.todo)
        stamp = Stamp(False, settings, inputs, {})
        # Only what began under a stamp may be overwritten later: a run that someone trained by hand is refused by kits.train.
        if verdict.todo != BEGIN or not holds_other(step):
            write_stamp(path, stamp)
        if arguments is not None:
            try:
                run_process(step.command, arguments)
            except KitsError as error:
                raise KitsError(f"{step.name}: {error}; the same command goes on from there") from error
        outputs = self._fingerprints(step.outputs)
        write_stamp(path, replace(stamp, done=True, outputs=outputs))
        return True

    def _fingerprints(self, paths: Mapping[str, Path]) -> dict[str, str]:
        return {name: fingerprint(path, self.output) for name, path in paths.items()}


def arguments_of(step: Step, todo: str) -> list[str] | None:
    """The overrides to run a step with; None where only its stamp is wanting."""
    if todo == GO_ON:
        if step.command != "train":
            return list(step.arguments)
        run = Path(step.config["run_dir"])
        if (read_manifest(run) or {}).get("finished"):
            return None
        if (run / CONFIG).is_file():
            return [f"resume={run}"]
    again = todo != BEGIN and "overwrite" in step.config
    return [*step.arguments, *(["overwrite=true"] if again else [])]


def holds_other(step: Step) -> bool:
    """Whether a training would find another in its run folder."""
    run = step.config.get("run_dir")
    return run is not None and holds_run(Path(run))


def forget_run(step: Step) -> None:
    """Remove what makes an older run one to go on with: if the new one is killed early, it must not go on with the old."""
    if "run_dir" in step.config:
        for name in (CONFIG, MANIFEST):
            (Path(step.config["run_dir"]) / name).unlink(missing_ok=True)
