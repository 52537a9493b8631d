"""The report of a run: one small JSON file a scan, written when it is done, and `report.json`.

The latter joins them. A file of its own for each scan makes the report safe: whatever ends a run, what is done stays told, and
many processes can write into one folder. It is also the mark that a scan is finished.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.core.plain_files import misfit, read_object
from kits.data.scans import Scan
from kits.io import write_json
from kits.prediction.outputs import Outputs

OK, FAILED = "ok", "failed"
ENTRY = {"status": str, "input": {"path": str}}
FORMS = {OK: {"outputs": {str: [str]}}, FAILED: {"error": str}}


@dataclass(frozen=True)
class RunReport:
    """The report of one run, whose scans it tells of one by one.

    Attributes:
        outputs: where it lies.
        made_with: hashes of the checkpoints and the settings on which a result depends; a finished scan must agree in them.
        run: what else a reader may want to know of the run.
        parts: what else must be told of a scan, by its name in the entry.
    """

    outputs: Outputs
    made_with: Mapping[str, Any]
    run: Mapping[str, Any]
    parts: tuple[str, ...] = ()

    def is_finished(self, scan: Scan) -> bool:
        """Tell whether all that is wanted of this scan was made of it as it is now, with these settings."""
        entry = read_entry(self.outputs.entry(scan.name))
        written = entry.get("outputs", {})
        return (
            entry.get("status") == OK
            and entry.get("made_with") == self.made_with
            and entry.get("input") == input_of(scan)
            and all(kind in written for kind in self.outputs.kinds(scan))
            and all(part in entry for part in self.parts)
            and exist(self.outputs.folder, entry)
        )

    def add(self, scan: Scan, content: Mapping[str, Any]) -> None:
        """Tell of a scan whose results are written."""
        made_with = dict(self.made_with)
        write_json(self.outputs.entry(scan.name), {"status": OK, "input": input_of(scan), **content, "made_with": made_with})

    def add_failure(self, scan: Scan, error: str, details: Sequence[str] = ()) -> None:
        """Tell of a scan that could not be segmented, and remove what would pass for its result."""
        path = self.outputs.entry(scan.name)
        for name in outputs_of(read_entry(path)):
            (self.outputs.folder / name).unlink(missing_ok=True)
        told = {"error": error, **({"details": list(details)} if details else {})}
        write_json(path, {"status": FAILED, "input": input_of(scan), **told, "made_with": dict(self.made_with)})

    def join(self, names: Collection[str], skipped: Collection[Any]) -> Path | None:
        """Write `report.json` of every scan in the folder; None where the output is one file.

        Args:
            names: the scans of this run, all shards' together; a failure of any other is no longer of interest.
            skipped: what was found beside the scans.
        """
        if self.outputs.is_file:
            return None
        cases, failed = {}, {}
        for path in sorted(self.outputs.entry("case").parent.glob("[!.]*.json")):
            entry = read_entry(path)
            if entry.get("status") == OK and exist(self.outputs.folder, entry):
                cases[path.stem] = entry
            elif entry.get("status") == FAILED and path.stem in names:
                failed[path.stem] = {"input": entry["input"]["path"], "error": entry["error"]}
        content = {
            "versions": versions(),
            **self.run,
            **self.made_with,
            "cases": cases,
            "failed": failed,
            "skipped": [{"path": str(item.path), "why": item.why} for item in skipped],
        }
        path = self.outputs.folder / "report.json"
        write_json(path, content)
        return path


def input_of(scan: Scan) -> dict[str, object]:
    """Note a scan's path and what tells that it was changed."""
    return {"path": str(scan.path), **scan.identity()}


def read_entry(path: Path) -> dict[str, Any]:
    """Read a scan's part of the report; empty where there is none that can be read."""
    entry = read_object(path, ENTRY) or {}
    return entry if not misfit(entry, FORMS.get(entry.get("status", ""), {})) else {}


def outputs_of(entry: Mapping[str, Any]) -> list[str]:
    """List the files that an entry names, relative to the folder; none that leaves it, whoever wrote it."""
    named = [name for names in entry.get("outputs", {}).values() for name in names]
    return [name for name in named if not Path(name).is_absolute() and ".." not in Path(name).parts]


def exist(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Tell whether all files that an entry names are there."""
    return all((folder / name).is_file() for name in outputs_of(entry))


def versions() -> dict[str, str]:
    """List the versions of this project and of the libraries on which its results depend."""
    from importlib.metadata import version

    from kits import __version__

    found = {name: version(name) for name in ("torch", "timm", "numpy", "scipy", "SimpleITK")}
    return {"kits": __version__, "python": platform.python_version(), **found}
