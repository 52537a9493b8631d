"""CT volumes in one orientation, windows of them, the coarse in-plane grid, and the exact ways back.

Any room above may import it.

Everything inside the project works on arrays (slice, row, column) = (z, y, x) whose axes run Superior, Posterior and Left (LPS).
"""

from kits.volume.agreement import Disagreement, bring_to, compare, lay_into
from kits.volume.coarse_grid import (
    CoarseGrid,
    area_resize,
    average_slices,
    coarse_planes,
    labels_to_coarse,
    plane_grid,
    prevailing_slices,
    to_coarse,
)
from kits.volume.geometry import Grid, Spacing, Triple, Volume, from_image, from_stored, grid_of, stored_order
from kits.volume.windows import bounding_slices, crop, slabs

__all__ = [
    "CoarseGrid",
    "Disagreement",
    "Grid",
    "Spacing",
    "Triple",
    "Volume",
    "area_resize",
    "average_slices",
    "bounding_slices",
    "bring_to",
    "coarse_planes",
    "compare",
    "crop",
    "from_image",
    "from_stored",
    "grid_of",
    "labels_to_coarse",
    "lay_into",
    "plane_grid",
    "prevailing_slices",
    "slabs",
    "stored_order",
    "to_coarse",
]
