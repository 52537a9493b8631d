"""Augmentation of one patch, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np


def augment(
    hu: np.ndarray, label: np.ndarray, rng: np.random.Generator, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """A random variant of a patch (z, y, x): left-right flip, HU scale, shift and noise, contrast curve.

    The intensities change in HU, before the window, so that what the window clips varies too.
    """
    hu = hu.astype(np.float32)
    if rng.random() < options["flip"]:
        hu, label = hu[:, :, ::-1], label[:, :, ::-1]
    hu = hu * (1 + options["scale"] * rng.uniform(-1, 1)) + options["shift_hu"] * rng.uniform(-1, 1)
    if options["noise_hu"]:
        deviation = np.float32(options["noise_hu"] * rng.random())
        hu = hu + deviation * rng.standard_normal(hu.shape, dtype=np.float32)
    return hu, label


def apply_gamma(normalised: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Bend [-1, 1] by a random power between 1 / (1 + strength) and 1 + strength; the ends stay where they are."""
    if not strength:
        return normalised
    power = (1 + strength) ** rng.uniform(-1, 1)
    return (2 * ((normalised + 1) / 2) ** power - 1).astype(np.float32)
