"""Points that surgeons give a kidney tumor, from continuous values: R.E.N.A.L. and PADUA.

R.E.N.A.L.: Kutikov and Uzzo 2009, J Urol 182:844. PADUA: Ficarra and others 2009, Eur Urol 56:786. A label map shows neither
vessels nor calyces: components that depend on them stay open.
"""

from __future__ import annotations

from dataclasses import dataclass

ANTERIOR, POSTERIOR, NEITHER = "anterior", "posterior", "neither"
OPEN_HILUM = "a label map does not show the renal artery and vein"
OPEN_CALYCES = "a label map does not show the collecting system"
# Ours: a smaller share outside of the outline is within the outline's own error, so it counts as none.
LEAST_OUTSIDE = 0.02


@dataclass(frozen=True)
class Points:
    """One component of a score: its points, its value and its rule; None where it is open."""

    points: int | None
    value: float | str | None
    rule: str


@dataclass(frozen=True)
class RenalScore:
    """The R.E.N.A.L. score; `total` is the sum with the letter of A, None where R, E, N or L is open."""

    R: Points
    E: Points
    N: Points
    L: Points
    A: Points
    h: Points
    total: str | None


@dataclass(frozen=True)
class PaduaScore:
    """The PADUA score, with the least and the most that its sum can be, whatever the open components are."""

    longitudinal: Points
    exophytic: Points
    rim: Points
    sinus: Points
    collecting_system: Points
    size: Points
    face: str | None
    at_least: int
    at_most: int


@dataclass(frozen=True)
class Position:
    """The place of a tumor in the values that scores ask for; None where one was not measured.

    Attributes:
        diameter_mm: the axial one.
        exophytic: share of its volume outside of the kidney's outline, 0 to 1.
        sinus_mm: distance to the sinus.
        between: share of its volume between the polar lines.
        crosses_middle: whether it crosses the plane half way between the polar lines.
        face: `anterior`, `posterior` or `neither`.
        medial: whether its center lies on the side of the sinus.
    """

    diameter_mm: float
    exophytic: float | None
    sinus_mm: float | None
    between: float | None
    crosses_middle: bool | None
    face: str | None
    medial: bool | None


def renal(at: Position) -> RenalScore:
    """Score a position by R.E.N.A.L."""
    radius = Points(size_points(at.diameter_mm), at.diameter_mm, "1 up to 40 mm, 2 below 70 mm, 3 from 70 mm on")
    exophytic = _exophytic(at.exophytic)
    near = None if at.sinus_mm is None else 1 if at.sinus_mm >= 7 else 2 if at.sinus_mm > 4 else 3
    nearness = Points(near, at.sinus_mm, "1 from 7 mm to the sinus on, 2 above 4 mm, 3 up to 4 mm")
    pole = None if at.between is None else 1 if at.between == 0 else 3 if at.between > 0.5 or at.crosses_middle else 2
    rule = "1 outside the polar lines, 2 across one, 3 if more than half is between them or it crosses the middle"
    location = Points(pole, at.between, rule)
    letter = None if at.face is None else {ANTERIOR: "a", POSTERIOR: "p"}.get(at.face, "x")
    face = Points(None, letter, "a anterior, p posterior, x neither of the kidney's own plane")
    points = [part.points for part in (radius, exophytic, nearness, location)]
    total = None if None in points else f"{sum(one or 0 for one in points)}{letter or ''}"
    return RenalScore(radius, exophytic, nearness, location, face, Points(None, None, OPEN_HILUM), total)


def padua(at: Position) -> PaduaScore:
    """Score a position by PADUA."""
    half = None if at.between is None else 2 if at.between > 0.5 else 1
    rim = None if at.medial is None else 2 if at.medial else 1
    side = None if at.medial is None else "medial" if at.medial else "lateral"
    touches = None if at.sinus_mm is None else 2 if at.sinus_mm == 0 else 1
    # Unlike R, whose 3 points begin at 70 mm, PADUA still gives 2 there.
    size = 2 if at.diameter_mm == 70 else size_points(at.diameter_mm)
    components = (
        Points(half, at.between, "2 if more than half lies between the sinus lines"),
        _exophytic(at.exophytic),
        Points(rim, side, "1 lateral, 2 medial of the kidney's center"),
        Points(touches, at.sinus_mm, "2 where it touches the sinus"),
        Points(None, None, OPEN_CALYCES),
        Points(size, at.diameter_mm, "1 up to 40 mm, 2 up to 70 mm, 3 above"),
    )
    low = sum(part.points or 1 for part in components)
    high = sum(part.points or most for part, most in zip(components, (2, 3, 2, 2, 2, 3), strict=True))
    return PaduaScore(*components, face=at.face, at_least=low, at_most=high)


def size_points(diameter_mm: float) -> int:
    """Give the points of R."""
    return 1 if diameter_mm <= 40 else 2 if diameter_mm < 70 else 3


def _exophytic(share: float | None) -> Points:
    points = None if share is None else 1 if share >= 0.5 else 2 if share > LEAST_OUTSIDE else 3
    return Points(points, share, "1 from half outside on, 2 below half, 3 if nothing of it is outside")
