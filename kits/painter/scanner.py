"""The scanner: point spread, kernel, noise correlated as the kernel leaves it, padding, whole HU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from kits.painter.fields import Field, Triple

PADDING_HU = (-1024, -2000, -2048, -3024)


@dataclass(frozen=True)
class Scanner:
    """One scan's settings: noise in HU, blur in mm, and where the picture ends."""

    noise_hu: float
    blur_mm: float
    sharpening: float
    peak_per_mm: float
    slice_mm: float
    padding_hu: int
    radius_mm: float
    center_mm: tuple[float, float]


def draw_scanner(rng: np.random.Generator, extent: Triple, spacing: Triple) -> Scanner:
    """Draw settings for a volume of `extent` (z, y, x) mm: noise 5 to 35 HU, more in thin slices."""
    sharp = rng.beta(1.2, 2.2)
    slice_mm = max(spacing[0], float(rng.uniform(0.8, 3.0)))
    noise = float(np.exp(rng.uniform(np.log(5), np.log(24)))) * (1 + 0.7 * sharp) * (2.5 / slice_mm) ** 0.2
    half = max(extent[1], extent[2]) / 2
    return Scanner(
        noise_hu=noise,
        blur_mm=float(0.95 - 0.5 * sharp + rng.normal(0, 0.06)),
        sharpening=float(max(0.0, rng.normal(0, 0.25) + 0.6 * sharp)),
        peak_per_mm=float(0.12 + 0.3 * sharp),
        slice_mm=slice_mm,
        padding_hu=int(rng.choice(PADDING_HU, p=[0.5, 0.15, 0.15, 0.2])),
        radius_mm=float(half * rng.uniform(0.985, 1.03)),
        center_mm=(extent[1] / 2, extent[2] / 2),
    )


class Detector:
    """A detector that applies a `Scanner` to slices one by one, with noise correlated along z."""

    def __init__(self, scanner: Scanner, shape: tuple[int, int], spacing: Triple, rng: np.random.Generator) -> None:
        self.scanner, self.shape, self.rng = scanner, shape, rng
        rows = fft.fftfreq(shape[0], spacing[1])[:, None]
        columns = fft.rfftfreq(shape[1], spacing[2])[None, :]
        f2 = rows**2 + columns**2
        blur = np.exp(-2 * (np.pi * scanner.blur_mm) ** 2 * f2)
        # A sharp kernel lifts the middle frequencies before the optics win.
        self.transfer = (blur * (1 + scanner.sharpening * f2 / (f2 + 0.15**2))).astype(np.float32)
        power = np.sqrt(f2) * np.exp(-f2 / (2 * scanner.peak_per_mm**2)) + 1e-4
        self.spectrum = np.sqrt(power / power.sum()).astype(np.float32)
        y = (np.arange(shape[0]) * spacing[1] - scanner.center_mm[0])[:, None]
        x = (np.arange(shape[1]) * spacing[2] - scanner.center_mm[1])[None, :]
        radius = np.hypot(y, x)
        # Rays through the middle of the body are weakened most.
        self.amplitude = (scanner.noise_hu * (0.65 + 0.5 * np.exp(-((radius / 110) ** 2)))).astype(np.float32)
        self.outside = radius > scanner.radius_mm
        self.keep = float(np.exp(-((spacing[0] / (0.8 * scanner.slice_mm)) ** 2)))
        self.previous = self.fresh()

    def fresh(self) -> Field:
        """Draw white noise under the kernel's spectrum: mean 0, standard deviation 1."""
        rows, columns = self.spectrum.shape
        white = self.rng.standard_normal((rows, 2 * columns), dtype=np.float32).view(np.complex64)
        noise = fft.irfft2(white * self.spectrum, s=self.shape)
        return noise / np.float32(noise.std() + 1e-12)

    def expose(self, image: Field) -> NDArray[np.int16]:
        """Turn one slice (y, x) of ideal HU into what the scanner would write, int16."""
        blurred = fft.irfft2(fft.rfft2(image) * self.transfer, s=self.shape)
        self.previous = np.float32(self.keep) * self.previous + np.float32(np.sqrt(1 - self.keep**2)) * self.fresh()
        seen = np.clip(blurred + self.amplitude * self.previous, -1024, 3071)
        seen[self.outside] = self.scanner.padding_hu
        return np.rint(seen).astype(np.int16)
