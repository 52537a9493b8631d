"""The noise of a real scan: how strong it is, how it is correlated, and more of the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from kits.painter.fields import Field

# Blocks that the spectrum is measured in, pixels; what is slower than that counts as anatomy.
SIDE = 24
SOFT_TISSUE_HU = (-150.0, 250.0)
# Share of the blocks of soft tissue that are taken for flat.
FLATTEST = 0.2
FEWEST = 8


@dataclass(frozen=True)
class Grain:
    """Noise of one scan.

    Attributes:
        hu: standard deviation.
        kernel: (SIDE, SIDE) that white noise is convolved with, of unit energy.
        along_z: correlation of neighboring slices.
    """

    hu: float
    kernel: Field
    along_z: float

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> Field:
        """Draw noise (z, y, x) in HU, float32."""
        rows, columns = max(shape[1], SIDE), max(shape[2], SIDE)
        transfer = fft.rfft2(self.kernel, s=(rows, columns)).astype(np.complex64)
        keep, fresh = np.float32(self.along_z), np.float32(np.sqrt(1 - self.along_z**2))
        out = np.empty(shape, np.float32)
        for z in range(shape[0]):
            white = rng.standard_normal((rows, columns), dtype=np.float32)
            plane = fft.irfft2(fft.rfft2(white) * transfer, s=(rows, columns))[: shape[1], : shape[2]]
            out[z] = plane if z == 0 else keep * out[z - 1] + fresh * plane
        return out * np.float32(self.hu)


def grain_of(hu: Field, inside: NDArray[np.bool_]) -> Grain:
    """Measure a scan's noise (z, y, x): correlation in the flattest soft tissue, level `inside` an organ."""
    step = max(1, len(hu) // 30)
    depth = len(hu[::step])
    rows, columns = hu.shape[1] // SIDE, hu.shape[2] // SIDE
    tiles = hu[::step, : rows * SIDE, : columns * SIDE].reshape(depth, rows, SIDE, columns, SIDE)
    tiles = tiles.transpose(0, 1, 3, 2, 4).reshape(-1, SIDE, SIDE)
    places = np.flatnonzero((tiles.min(axis=(1, 2)) > SOFT_TISSUE_HU[0]) & (tiles.max(axis=(1, 2)) < SOFT_TISSUE_HU[1]))
    deviation = tiles[places].std(axis=(1, 2))
    places = places[np.argsort(deviation, kind="stable")[: max(FEWEST, int(FLATTEST * len(places)))]]
    places = places[tiles[places].std(axis=(1, 2)) > 0.5] if len(places) else places
    if len(places) < FEWEST:  # no soft tissue that is flat: white noise, about as much as two neighboring pixels differ
        kernel = np.zeros((SIDE, SIDE), np.float32)
        kernel[0, 0] = 1
        return Grain(measure_level(hu, inside, kernel), kernel, 0.0)
    flat = flatten(tiles[places])
    # Faded out at their edges, where left and right do not meet and would pass for high frequencies.
    fade = np.hanning(SIDE + 1)[:-1].astype(np.float32)
    power = (np.abs(fft.fft2(flat * fade[:, None] * fade)) ** 2).mean(axis=0)
    kernel = fft.fftshift(fft.ifft2(np.sqrt(power)).real)
    kernel = (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)
    return Grain(measure_level(hu, inside, kernel), kernel, correlation_along_z(hu, places, step, flat))


def flatten(tiles: Field) -> Field:
    """Return blocks (n, SIDE, SIDE) less the plane that fits each best."""
    ramp = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    squares = float((ramp**2).sum()) * SIDE
    flat = tiles - tiles.mean(axis=(1, 2), keepdims=True)
    down, across = (flat * ramp[:, None]).sum(axis=(1, 2)) / squares, (flat * ramp).sum(axis=(1, 2)) / squares
    return flat - down[:, None, None] * ramp[:, None] - across[:, None, None] * ramp


def correlation_along_z(hu: Field, places: NDArray[np.intp], step: int, flat: Field) -> float:
    """Return correlation (0 to 0.95) of flat blocks with the blocks of the next slice."""
    rows, columns = hu.shape[1] // SIDE, hu.shape[2] // SIDE
    sums = np.zeros(3)
    for place, block in zip(places[:200], flat[:200], strict=True):
        z, row, column = np.unravel_index(int(place), (len(hu[::step]), rows, columns))
        if (after := int(z) * step + 1) < len(hu):
            y, x = int(row) * SIDE, int(column) * SIDE
            other = flatten(hu[None, after, y : y + SIDE, x : x + SIDE])[0]
            if other.std() < 2 * block.std():  # else the next slice shows something else there
                sums += (float((block * other).sum()), float((block**2).sum()), float((other**2).sum()))
    return float(np.clip(sums[0] / np.sqrt(sums[1] * sums[2]), 0, 0.95)) if sums[1] * sums[2] > 0 else 0.0


def measure_level(hu: Field, inside: NDArray[np.bool_], kernel: Field) -> float:
    """Measure the standard deviation (HU) of the noise `inside`, from neighbors in a row.

    It follows from how much a pixel differs from the mean of the two beside it. The median of that is not moved by the few pixels
    on an edge; the kernel says which share of the noise it sees.
    """
    planes = np.flatnonzero(inside.any(axis=(1, 2)))
    if not len(planes):
        return 0.0
    picked = planes[:: max(1, len(planes) // 20)]
    laplace = np.array([-0.5, 1.0, -0.5], np.float32)
    seen = ndimage.correlate1d(hu[picked], laplace, axis=2)[inside[picked]]
    share = np.sqrt(float((ndimage.correlate1d(kernel, laplace, axis=1, mode="wrap") ** 2).sum()))
    return float(1.4826 * np.median(abs(seen - np.median(seen))) / max(share, 0.05))
