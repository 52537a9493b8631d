"""Validation of an image and its label map, headers, HU and likeness of slices, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kits.config import one_line
from kits.core.errors import KitsError, printable
from kits.core.plain_files import read_json
from kits.data.index import RECORDS_NAME, Case
from kits.io import read_geometry
from kits.volume import Grid, Spacing, compare
from kits.volume.hu import oddities

ERROR, WARNING = "error", "warning"
COLUMNS = ("case", "severity", "finding", "what to do")
SHOWN = 30
ABSURD_SPACING_MM = (0.1, 20.0)
MIN_SLICES = 4
# Records of spacing are rounded to the micrometer at worst; beyond this share volumes in mL are visibly wrong.
LISTED_TOLERANCE, LISTED_ERROR = 0.01, 0.1
# Kidneys are 0 to 40 HU without contrast and up to 250 with; below this the median lies in fat or air.
KIDNEY_HU = (-30, 500)
THUMBNAIL = 64


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error: the case cannot train) or odd (warning) with a case."""

    case: str
    severity: str
    finding: str
    remedy: str

    def __str__(self) -> str:
        return printable(f"{self.case}: {self.finding}; {self.remedy}")

    @classmethod
    def from_error(cls, case: str, error: Exception) -> Finding:
        """Turn a reader's message, `what is wrong; what to do`, into a finding."""
        what, _, remedy = one_line(error).rpartition("; ")
        return cls(case, ERROR, what or remedy, remedy if what else "mend the file or leave the case out with data.exclude")

    @classmethod
    def unexpected(cls, case: str, doing: str, error: Exception) -> Finding:
        """Turn an exception that nobody foresaw into a finding: the others go on."""
        what = f"{doing} failed ({type(error).__name__}: {one_line(error)})"
        return cls(case, ERROR, what, "download the case again; if that does not help, report this as a bug")


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """List the findings that keep a case out."""
    return [finding for finding in findings if finding.severity == ERROR]


def table(findings: Sequence[Finding], path: Path) -> str:
    """Return the table for the eye, errors first, at most SHOWN rows."""
    rows = sorted(findings, key=lambda row: (row.severity != ERROR, row.case))
    lines = [printable(f"{row.case:<12} {row.severity:<8} {row.finding}; {row.remedy}") for row in rows[:SHOWN]]
    more = f"{len(rows) - SHOWN} more in " if len(rows) > SHOWN else "also in "
    return "\n".join([*lines, f"({more}{path})"])


def check_files(case: Case) -> list[Finding]:
    """Check that the case has one file of each kind, and none is empty."""
    found = [Finding(case.id, ERROR, f"{case.label}: {other} is of the same scan", "take one out") for other in case.others[:1]]
    for path in (case.image, case.label):
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "missing"
            need = f"every training case needs {case.image.name} and {case.label.name}"
            found.append(Finding(case.id, ERROR, f"{path}: {what}", need))
        elif not path.stat().st_size:
            found.append(Finding(case.id, ERROR, f"{path}: empty (0 bytes)", "copy it again"))
    return found


def check_headers(case: Case) -> tuple[list[Finding], set[Path]]:
    """Check headers alone, and name the files whose voxels need not be tried."""
    found, grids = [], {}
    for path in (case.image, case.label):
        try:
            grid = read_geometry(path)
        except KitsError as error:
            found.append(Finding.from_error(case.id, error))
            continue
        except Exception as error:
            found.append(Finding.unexpected(case.id, f"{path}: reading the header", error))
            continue
        grids[path] = grid
        found += [Finding(case.id, ERROR, f"{path}: {what}", remedy) for what, remedy in odd_geometry(grid)]
    if len(grids) == 2:
        remedy = f"the two are not one case: find the label map of {case.image}, or mend the header that is wrong"
        # Whatever order of axes each file has.
        differences = compare(grids[case.label], grids[case.image]).differences
        found += [Finding(case.id, ERROR, f"{case.label}: {what}", remedy) for what in differences]
    return found, {case.image, case.label} - set(grids)


def odd_geometry(grid: Grid) -> list[tuple[str, str]]:
    """Find what in a header no abdominal CT has, each with a remedy."""
    low, high = ABSURD_SPACING_MM
    found = []
    if not all(low <= step <= high for step in grid.spacing):
        found.append((f"spacing {grid.spacing_zyx} mm is not that of a CT", "mend the header"))
    if grid.shape_zyx[0] < MIN_SLICES:
        found.append((f"only {grid.shape_zyx[0]} slices", "a single picture or a scout view? Give the whole scan"))
    return found


def listed_spacing(root: Path) -> dict[str, dict[str, object]]:
    """Read what `kits.json` beside the cases says of each case's spacing; empty without such a file.

    Raises:
        KitsError: it is no list of records.
    """
    path = root / RECORDS_NAME
    if not path.is_file():
        return {}
    records = read_json(path, [{"case_id": str | int}], "KiTS's list of records", "download it again or move it away")
    return {str(record["case_id"]): record for record in records}


def check_listed(case: str, spacing: Spacing, record: Mapping[str, object] | None) -> list[Finding]:
    """Check the image's spacing (z, y, x) against its record in `kits.json`.

    `voxel_spacing` was read off the scan: where the image disagrees by a tenth, its header is lost or it is another patient's.
    `captured_slice_thickness` of older records is no spacing (slices may overlap), so it only warns.
    """
    voxel, found = (record or {}).get("voxel_spacing"), []
    voxel = voxel if isinstance(voxel, dict) else {}
    for axis, step in zip("zyx", spacing, strict=True):
        captured = (record or {}).get("captured_slice_thickness" if axis == "z" else "captured_pixel_width")
        listed = voxel.get(f"{axis}_spacing", captured)
        if not isinstance(listed, int | float) or listed <= 0 or abs(step - listed) <= LISTED_TOLERANCE * listed:
            continue
        thickness = axis == "z" and f"{axis}_spacing" not in voxel
        severity = WARNING if thickness or abs(step - listed) <= LISTED_ERROR * listed else ERROR
        what = f"spacing along {axis} is {step:.4f} mm but kits.json says {'thickness ' * thickness}{listed:.4f} mm"
        found.append(Finding(case, severity, what, "mend the image's header, or its record if the image is right"))
    return found


def check_hu(case: str, name: str, counts: np.ndarray) -> list[Finding]:
    """Find what is wrong with the HU scale of an image by its `kits.volume.hu.histogram`."""
    return [Finding(case, ERROR if odd.serious else WARNING, f"{name}: {odd.what}", odd.remedy) for odd in oddities(counts)]


def misplaced_share(coarse: np.ndarray) -> float:
    """Compute the share of slices that resemble a slice elsewhere far more than both neighbors.

    `coarse` is (z, s, s) HU. Near 0 in a scan in order, near 1 in a shuffled one. Only better neighbors elsewhere count: slices
    that all look alike (a phantom, air) are in order as far as anyone can tell.
    """
    if len(coarse) < 4:
        return 0.0
    step = max(1, coarse.shape[1] // THUMBNAIL)
    side = coarse.shape[1] // step
    cut = coarse[:, : side * step, : side * step].clip(-200, 200).astype(np.float32)
    pixels = cut.reshape(len(cut), side, step, side, step).mean(axis=(2, 4)).reshape(len(cut), -1)
    pixels -= pixels.mean(axis=0)  # what is common to all slices says nothing, and would cost float32 its digits below
    squares = (pixels * pixels).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares[None] - 2 * (pixels @ pixels.T), 0) / pixels.shape[1]
    np.fill_diagonal(distance, np.inf)
    after = np.append(np.diagonal(distance, 1), np.inf)
    before = np.append(np.inf, np.diagonal(distance, -1))
    nearer = np.minimum(after, before)
    # 1 HU squared: below it rounding and not anatomy decides. A body that is symmetric along z, as phantoms are, has equals far
    # apart; but there, too, neighbors are far closer than slices at random.
    misplaced = (nearer > 1.5 * distance.min(axis=1) + 1) & (nearer > 0.35 * np.median(distance, axis=1))
    return float(misplaced.mean())


def check_order(case: str, name: str, coarse: np.ndarray) -> list[Finding]:
    """Check that slices are in order."""
    misplaced = misplaced_share(coarse)
    if misplaced < 0.25:
        return []
    what = f"{name}: slices are not in order: {misplaced:.0%} of them resemble distant slices more than their neighbors"
    return [Finding(case, ERROR, what, "sort them by position: convert it again from DICOM")]


def check_kidney_hu(case: str, name: str, median: float) -> list[Finding]:
    """Refuse a label map that lies on fat, air or bone: it belongs to another image."""
    low, high = KIDNEY_HU
    if low <= median <= high:
        return []
    what = f"{name}: what it calls kidney has {median:g} HU (median) in the image, which is no kidney: not this image's labels"
    return [Finding(case, ERROR, what, "find the label map of this image, in its orientation")]
