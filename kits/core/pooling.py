"""The axes that a 3D network pools and mixes, level by level, so that thick slices stay apart."""

from collections.abc import Sequence
from math import sqrt

Levels = list[list[int]]

# An axis is pooled where its spacing is within this of the finest axis: beyond it, pooling the others alone brings the spacings
# closer together.
POOLED = sqrt(2)
# An axis is mixed (kernel 3) where its spacing is within this of the finest axis (nnU-Net's rule, arXiv 1904.08128).
MIXED = 2.0


def anisotropic_levels(spacing: Sequence[float], depth: int, in_plane: int | None = None) -> tuple[Levels, Levels]:
    """Choose strides and kernels (z, y, x) of `depth` levels for voxels of `spacing` (z, y, x) mm.

    The first `in_plane` levels mix no slices, whatever the spacing: where planes are large that costs most.
    """
    current = list(spacing)
    strides: Levels = []
    kernels: Levels = []
    for _ in range(depth):
        finest = min(current)
        kernels.append([3 if step <= MIXED * finest else 1 for step in current])
        strides.append([2 if step <= POOLED * finest else 1 for step in current])
        current = [step * stride for step, stride in zip(current, strides[-1], strict=True)]
    flat = [[1, y, x] for _, y, x in kernels[: in_plane or 0]]
    return strides, [*flat, *kernels[len(flat) :]]
