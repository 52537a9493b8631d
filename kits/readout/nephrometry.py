"""Points that surgeons give a kidney tumor, from continuous values: R.E.N.A.L., PADUA and the C-index.

R.E.N.A.L.: Kutikov and Uzzo 2009, J Urol 182:844. PADUA: Ficarra and others 2009, Eur Urol 56:786. C-index: Simmons and others
2010, J Urol 183:1708. A label map knows no vessels and no calyces: what they decide stays open.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ANTERIOR, POSTERIOR, NEITHER = "anterior", "posterior", "neither"
OPEN_HILUM = "a label map does not show the renal artery and vein"
OPEN_CALYCES = "a label map does not show the collecting system"


@dataclass(frozen=True)
class Points:
    """One component of a score: its points, the value that they follow from, and the rule in words; None where it is open."""

    points: int | None
    value: float | str | None
    rule: str


@dataclass(frozen=True)
class Position:
    """Where a tumor lies, as the scores ask for it.

    Attributes:
        diameter_mm: the axial one.
        exophytic: share of its volume outside of the kidney's outline, 0 to 1.
        sinus_mm: distance to the sinus.
        between: share of its volume between the polar lines. crosses_middle: whether it crosses the plane half way between them.
        face: `anterior`, `posterior` or `neither`.
        medial: whether its center lies on the side of the sinus.

    A value is None where it could not be measured.
    """

    diameter_mm: float
    exophytic: float | None
    sinus_mm: float | None
    between: float | None
    crosses_middle: bool | None
    face: str | None
    medial: bool | None


def renal(at: Position) -> dict[str, Any]:
    """The R.E.N.A.L. score: points by letter, and their sum with the face's letter where all four are known."""
    parts = {
        "R": Points(size_points(at.diameter_mm), at.diameter_mm, "1 up to 40 mm, 2 below 70 mm, 3 from 70 mm on"),
        "E": _exophytic(at.exophytic),
        "N": _nearness(at.sinus_mm),
        "L": _polar(at.between, at.crosses_middle),
    }
    face = None if at.face is None else {ANTERIOR: "a", POSTERIOR: "p"}.get(at.face, "x")
    known = [part.points for part in parts.values() if part.points is not None]
    total = f"{sum(known)}{face or ''}" if len(known) == len(parts) else None
    told: dict[str, Any] = {letter: asdict(part) for letter, part in parts.items()}
    told["A"] = {"points": None, "value": face, "rule": "a anterior, p posterior, x neither of the kidney's own plane"}
    told["h"] = {"points": None, "value": None, "rule": OPEN_HILUM}
    return {**told, "total": total}


def padua(at: Position) -> dict[str, Any]:
    """The PADUA score: points by component, and the least and the most that the sum can be."""
    points = 2 if at.diameter_mm == 70 else size_points(at.diameter_mm)
    size = Points(points, at.diameter_mm, "1 up to 40 mm, 2 up to 70 mm, 3 above")
    half = None if at.between is None else 2 if at.between > 0.5 else 1
    pole = Points(half, at.between, "2 if more than half lies between the sinus lines")
    rim = Points(
        None if at.medial is None else 2 if at.medial else 1,
        None if at.medial is None else "medial" if at.medial else "lateral",
        "1 lateral, 2 medial of the kidney's center",
    )
    touches = Points(None if at.sinus_mm is None else 2 if at.sinus_mm == 0 else 1, at.sinus_mm, "2 where it touches the sinus")
    calyces = Points(None, None, OPEN_CALYCES)
    parts = {
        "longitudinal": pole,
        "exophytic": _exophytic(at.exophytic),
        "rim": rim,
        "sinus": touches,
        "collecting_system": calyces,
        "size": size,
    }
    most = {"longitudinal": 2, "exophytic": 3, "rim": 2, "sinus": 2, "collecting_system": 2, "size": 3}
    low = sum(part.points or 1 for part in parts.values())
    high = sum(part.points or most[name] for name, part in parts.items())
    return {**{name: asdict(part) for name, part in parts.items()}, "face": at.face, "at_least": low, "at_most": high}


def size_points(diameter_mm: float) -> int:
    """The points of R."""
    return 1 if diameter_mm <= 40 else 2 if diameter_mm < 70 else 3


def _exophytic(share: float | None) -> Points:
    rule = "1 from half outside on, 2 below half, 3 if nothing of it is outside"
    if share is None:
        return Points(None, None, rule)
    # Less than a fiftieth is within the error of the outline.
    return Points(1 if share >= 0.5 else 2 if share > 0.02 else 3, share, rule)


def _nearness(distance_mm: float | None) -> Points:
    rule = "1 from 7 mm to the sinus on, 2 above 4 mm, 3 up to 4 mm"
    if distance_mm is None:
        return Points(None, None, rule)
    return Points(1 if distance_mm >= 7 else 2 if distance_mm > 4 else 3, distance_mm, rule)


def _polar(between: float | None, crosses_middle: bool | None) -> Points:
    rule = "1 outside the polar lines, 2 across one, 3 if more than half is between them or it crosses the middle"
    if between is None:
        return Points(None, None, rule)
    return Points(1 if between == 0 else 3 if between > 0.5 or crosses_middle else 2, between, rule)
