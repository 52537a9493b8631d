"""The run of every scan: read, segmented, written, told of; a damaged one stops no other."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kits.config import one_line
from kits.core.errors import KitsError
from kits.core.parallel import ticking
from kits.core.peak_memory import peaks, reset_peaks
from kits.data.scans import Scan
from kits.data.validate import MIN_SLICES, odd_geometry
from kits.prediction.ledger import RunReport
from kits.prediction.outputs import Outputs
from kits.prediction.stream import stream

if TYPE_CHECKING:
    import numpy as np

    from kits.inference.segmenter import Segmentation, Segmenter
    from kits.volume import Grid, Volume


@dataclass(frozen=True)
class _Read:
    volume: Volume
    warnings: list[str]
    seconds: float


@dataclass(frozen=True)
class _Done:
    """A result without the volume that it is of, which is let go of as soon as the work on it is done."""

    result: Segmentation
    grid: Grid
    warnings: list[str]
    seconds: dict[str, float]
    memory: dict[str, int]
    parts: dict[str, object]


@dataclass
class PredictionRun:
    """The state that every scan of a run shares.

    Attributes:
        measure: what else the report tells of a scan and its labels, by its name there.
        failed: why a scan was not segmented, by its name.
        not_written: why an output of a segmented scan was not written, by the scan's name.
        finished: how many scans are, those of earlier runs too.
        bar: the progress bar, which names the scan that it waits for.
    """

    segmenter: Segmenter
    outputs: Outputs
    report: RunReport
    measure: Mapping[str, Callable[[np.ndarray, Volume], Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    not_written: dict[str, str] = field(default_factory=dict)
    finished: int = 0
    bar: Any = None

    def segment_all(self, scans: Mapping[str, Scan], *, of: Collection[str], skipped: Collection[Any], overwrite: bool) -> None:
        """Segment these scans, those that are finished only with `overwrite`, and write the report.

        Args:
            of: the names of the whole run's scans, of which these are this process's share.
            skipped: for the report.

        Raises:
            SystemExit: 130 after Ctrl-C; the report is written, and what to do is said.
        """
        from tqdm import tqdm

        todo = [scan for scan in scans.values() if overwrite or not self.report.is_finished(scan)]
        if len(todo) < len(scans):
            print(f"{len(scans) - len(todo)} of {len(scans)} inputs are finished and skipped (overwrite=true does them again)")
        self.finished = len(scans) - len(todo)
        try:
            with (
                closing(stream(todo, self._read, self._segment, self._write)) as cases,
                tqdm(total=len(todo), desc="predict", unit="case", disable=not todo) as self.bar,
                ticking(self.bar),
            ):
                for scan, error in cases:
                    if error is not None:
                        self._fail(scan, error)
                        tqdm.write(f"left out: {self.failed[scan.name]}")
                    self.bar.update()
        except KeyboardInterrupt:
            self._join(of, skipped)
            done = f"{self.finished} of {len(scans)} inputs are finished, and the same command goes on with the others"
            print(f"kits.predict: interrupted; {done}", file=sys.stderr)
            raise SystemExit(130) from None
        self._join(of, skipped)

    def _join(self, of: Collection[str], skipped: Collection[Any]) -> None:
        try:
            self.report.join(of, skipped)
        except KitsError as error:
            if not self.failed:
                raise
            print(error)  # whatever ails the disk has been said of a scan, and is said again at the end

    def _read(self, scan: Scan) -> _Read:
        began = time.perf_counter()
        volume = scan.read()
        if min(volume.array.shape) < MIN_SLICES:
            z, y, x = volume.array.shape
            raise KitsError(
                f"{scan.path}: only {z} x {y} x {x} voxels (z, y, x); a single picture or a scout? Give the whole scan"
            )
        warnings = [f"{what}; {remedy}" for what, remedy in odd_geometry(volume.grid)]
        if warnings and not self.segmenter.options.allow_implausible:
            raise KitsError(f"{scan.path}: {warnings[0]}, or add allow_implausible=true")
        if self.outputs.dicom_seg and not scan.files:
            warnings.append("no DICOM series, so dicom_seg=true writes nothing of it")
        return _Read(volume, [*scan.notes, *warnings], time.perf_counter() - began)

    def _segment(self, scan: Scan, read: _Read) -> _Done:
        from tqdm import tqdm

        if self.bar is not None:
            self.bar.set_postfix_str(f"segments {scan.name}")
        reset_peaks(self.segmenter.device)
        try:
            result = self.segmenter.segment(read.volume)
        except KitsError as error:
            raise KitsError(f"{scan.path}: {error}") from error
        warnings = [*read.warnings, *result.warnings]
        for warning in warnings:
            tqdm.write(f"{scan.name}: {warning}")
        seconds, parts = {"read": read.seconds, **result.seconds}, {}
        for name, work in self.measure.items():
            began = time.perf_counter()
            try:
                parts[name] = work(result.labels, read.volume)
            except KitsError as error:  # the labels are worth having all the same
                parts[name] = None
                warnings.append(f"no {name}: {error}")
            seconds[name] = time.perf_counter() - began
        return _Done(result, read.volume.grid, warnings, seconds, peaks(self.segmenter.device), parts)

    def _write(self, scan: Scan, done: _Done) -> None:
        from tqdm import tqdm

        began = time.perf_counter()
        written, failed = self.outputs.write(scan, done.grid, done.result, self.segmenter.classes)
        not_written = {kind: _told(error, scan) for kind, error in failed.items()}
        for kind, why in not_written.items():
            self.not_written[scan.name] = f"{kind} of {scan.name}: {why}"
            tqdm.write(f"not written: {self.not_written[scan.name]}")
        seconds = {**done.seconds, "write": time.perf_counter() - began}
        content = {
            "outputs": written,
            "not_written": not_written,
            "boxes": [box.to_list() for box in done.result.boxes],
            "volumes_ml": {region: round(volume, 2) for region, volume in done.result.volumes_ml.items()},
            "parts": [part.to_dict() for part in done.result.parts],
            **done.parts,
            "warnings": done.warnings,
            "seconds": {step: round(value, 3) for step, value in seconds.items()},
            "peak_memory": done.memory,
            "device": str(self.segmenter.device),
            "precision": self.segmenter.precision,
        }
        self.report.add(scan, content)
        self.finished += 1

    def _fail(self, scan: Scan, error: Exception) -> None:
        text, details = _told(error, scan), []
        if not isinstance(error, KitsError | MemoryError):
            text += "; the report has the details"
            details = [line.rstrip() for line in traceback.format_exception(error)]
        self.failed[scan.name] = text
        try:
            self.report.add_failure(scan, text, details)
        except KitsError as unwritable:  # the disk may be full; what matters is said at the end
            self.failed[scan.name] += f" (and {unwritable})"


def _told(error: Exception, scan: Scan) -> str:
    """Say in one line what went wrong with a scan."""
    if isinstance(error, KitsError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{scan.path}: not enough memory for it; use a larger machine or crop the scan"
    return f"{scan.path}: unexpected {type(error).__name__} ({one_line(error)})"
