"""Which axes a 3D network pools and mixes, level by level, so that thick slices are not smeared into one another."""

from collections.abc import Sequence
from math import sqrt

Levels = list[list[int]]

# An axis is pooled where its spacing is within this of the finest axis: beyond it, pooling the others alone brings the spacings
# closer together.
POOLED = sqrt(2)
# An axis is mixed (kernel 3) where its spacing is within this of the finest axis (nnU-Net's rule, arXiv 1904.08128).
MIXED = 2.0


def anisotropic_levels(spacing: Sequence[float], depth: int, stem: int | None = None) -> tuple[Levels, Levels]:
    """Strides and kernels (z, y, x) of `depth` levels of a network that starts at `spacing` (z, y, x) mm.

    Where a `stem` makes cells of so many pixels first, that is the first stride, the first level is in-plane, and those below
    follow the cells' spacing.
    """
    if stem is not None:
        z, y, x = spacing
        strides, kernels = anisotropic_levels([z, stem * y, stem * x], depth)
        return [[1, stem, stem], *strides[:-1]], [[1, 3, 3], *kernels[1:]]
    current = list(spacing)
    strides, kernels = [], []
    for _ in range(depth):
        finest = min(current)
        kernels.append([3 if step <= MIXED * finest else 1 for step in current])
        strides.append([2 if step <= POOLED * finest else 1 for step in current])
        current = [step * stride for step, stride in zip(current, strides[-1], strict=True)]
    return strides, kernels
