"""The canvas that organs are painted on: HU and warped body coordinates on a coarse lattice."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from kits.painter.fields import Field, Lattice, Slices, Triple, ellipsoid, smooth_noise
from kits.painter.frame import Body
from kits.painter.phases import Contrast

WHOLE: Slices = (slice(None), slice(None), slice(None))

# Noise that several organs share, by name and size of its blobs (z, y, x) in mm.
FINE: tuple[str, Triple] = ("fine", (6, 5, 5))
SLOW: tuple[str, Triple] = ("slow", (30, 26, 26))
STRAND: tuple[str, Triple] = ("strand", (9, 8, 8))
LUMPS: tuple[str, Triple] = ("lumps", (5, 4, 4))
HAUSTRA: tuple[str, Triple] = ("haustra", (16, 14, 14))

WARP_CELL = (45.0, 38.0, 38.0)
WARP_MM = 3.5


@dataclass
class Canvas:
    """The state that organ painters share.

    Attributes:
        lattice: unwarped points in the body frame (w, v, u) mm.
        w, v, u: the same coordinates bent by smooth noise, each of the lattice's shape; shapes drawn in them look organic.
        hu: the picture so far, HU.
        distance: mm to the nearest kidney or tumor voxel, negative inside.
        soft: width of an edge in mm.
        fat: HU of fat.
        wall, inside: signed distance (mm) to the outer and the inner face of the muscular wall, once it is painted.
        variety: 0 to 1, how often a case has what `kits.painter.variety` adds.
        noises: smooth noise fields shared between organs, by the name of their scale.
    """

    rng: np.random.Generator
    body: Body
    contrast: Contrast
    lattice: Lattice
    w: Field
    v: Field
    u: Field
    hu: Field
    distance: Field
    soft: float
    variety: float = 0.0
    noises: dict[str, Field] = field(default_factory=dict)
    fat: float = -105.0
    wall: Field = field(init=False)
    inside: Field = field(init=False)

    @classmethod
    def blank(
        cls, rng: np.random.Generator, body: Body, contrast: Contrast, lattice: Lattice, distance: Field, variety: float
    ) -> Canvas:
        """Begin with air everywhere and coordinates bent by `WARP_MM` (one standard deviation)."""
        w, v, u = (
            base.reshape([-1 if k == axis else 1 for k in range(3)]) + WARP_MM * smooth_noise(rng, lattice, WARP_CELL)
            for axis, base in enumerate(lattice.axes)
        )
        hu = np.full(lattice.shape, -1000, np.float32)
        return cls(rng, body, contrast, lattice, w, v, u, hu, distance, soft=0.9 * lattice.step[2], variety=variety)

    def happens(self, share: float) -> bool:
        """Draw whether a case has what `share` of all have at full variety; at 0 no number is drawn."""
        return self.variety > 0 and bool(self.rng.random() < share * self.variety)

    def noise(self, name: str, cell: Triple) -> Field:
        """Draw a smooth field kept under `name`: drawn once, used by every organ that wants that scale."""
        if name not in self.noises:
            self.noises[name] = smooth_noise(self.rng, self.lattice, cell)
        return self.noises[name]

    def cover(self, distance: Field) -> Field:
        """Turn a signed distance (mm) into coverage in [0, 1] with an edge as wide as a voxel."""
        return np.clip(0.5 - distance / self.soft, 0, 1)

    def paint(self, where: Slices, coverage: Field, hu: Field | float) -> None:
        """Mix `hu` into the picture by `coverage` inside the box `where`."""
        view = self.hu[where]
        view += coverage * (hu - view)

    def around(self, center: Triple, reach: Triple) -> Slices:
        """Find the box that surely holds a shape within `reach` of `center` (w, v, u) in warped coordinates."""
        slack = 4 * WARP_MM
        return self.lattice.box(center, (reach[0] + slack, reach[1] + slack, reach[2] + slack))

    def empty(self, where: Slices) -> bool:
        return any(part.stop <= part.start for part in where)

    def ellipsoid(self, where: Slices, center: Triple, radii: Triple) -> Field:
        """Compute the signed distance (mm) to an ellipsoid in warped coordinates inside the box `where`."""
        return ellipsoid(self.w[where] - center[0], self.v[where] - center[1], self.u[where] - center[2], radii)

    def blob(self, center: Triple, radii: Triple, hu: float, texture: float = 0.0) -> None:
        """Paint one ellipsoid inside the wall; `texture` is the standard deviation (HU) of shared fine noise."""
        where = self.around(center, radii)
        if self.empty(where):
            return
        value = hu + texture * self.noise(*FINE)[where] if texture else hu
        distance = np.maximum(self.ellipsoid(where, center, radii), self.inside[where] + 2)
        self.paint(where, self.cover(distance), value)

    def tube(self, points: list[Triple], radius: float, hu: float, flat: float = 1.0) -> None:
        """Paint a vessel along `points` (w, v, u): `flat` > 1 widens it along u and thins it along v."""
        where, distance = self.path(points, radius, flat)
        if distance is not None:
            self.paint(where, self.cover(distance), hu)

    def path(self, points: list[Triple], radius: float, flat: float = 1.0) -> tuple[Slices, Field | None]:
        """Return the box of a poly-line of capsules and the signed distance (mm) in it; None if outside."""
        array = np.array(points, np.float32)
        low, high = array.min(axis=0) - radius * flat, array.max(axis=0) + radius * flat
        middle, reach = (low + high) / 2, (high - low) / 2
        where = self.around(tuple(map(float, middle)), tuple(map(float, reach)))  # type: ignore[arg-type]
        if self.empty(where):
            return where, None
        best = np.full([part.stop - part.start for part in where], 1e6, np.float32)
        for start, stop in pairwise(array):
            middle, reach = (start + stop) / 2, abs(stop - start) / 2 + radius * flat
            near = self.around(tuple(map(float, middle)), tuple(map(float, reach)))  # type: ignore[arg-type]
            if self.empty(near):
                continue
            w, v, u = self.w[near] - start[0], (self.v[near] - start[1]) * flat, (self.u[near] - start[2]) / flat
            along = (stop - start) * np.array([1, flat, 1 / flat], np.float32)
            t = np.clip((w * along[0] + v * along[1] + u * along[2]) / (along @ along + np.float32(1e-6)), 0, 1)
            distance = (w - t * along[0]) ** 2 + (v - t * along[1]) ** 2 + (u - t * along[2]) ** 2
            inner = tuple(
                slice(part.start - outer.start, part.stop - outer.start) for part, outer in zip(near, where, strict=True)
            )
            np.minimum(best[inner], distance, out=best[inner])
        return where, np.sqrt(best) - radius
