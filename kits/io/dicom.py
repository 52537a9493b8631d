"""The slices of one DICOM series as one image, evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from kits.errors import KitsError
from kits.io.reason import last_line


def read_slices(folder: Path, files: Sequence[Path]) -> sitk.Image:
    """The volume of a series that has one slice a file, the files in the order of their slices.

    Raises:
        KitsError: a file cannot be read, the slices are not gray, or they are uneven.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise KitsError(f"{folder}: DICOM series cannot be read ({last_line(error)}); export it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise KitsError(f"{folder}: DICOM series is not one gray volume; give a CT series")
    try:
        positions = [[float(value) for value in reader.GetMetaData(k, "0020|0032").split("\\")] for k in range(len(files))]
    except (RuntimeError, ValueError) as error:
        raise KitsError(f"{folder}: slices without a position, so no CT series; give a CT series") from error
    _check_slices(folder, image, np.array(positions))
    return image


def _check_slices(folder: Path, image: sitk.Image, positions: np.ndarray) -> None:
    """Raise KitsError unless the slices lie evenly along the normal: ITK would only warn and invent a spacing.

    Args:
        positions: Image Position (Patient), (n, 3) mm, in the order of the slices.
    """
    steps = np.diff(positions, axis=0)
    normal = np.reshape(image.GetDirection(), (3, 3))[:, 2]
    along = steps @ normal
    # A tenth of a slice: scanners round positions to 0.1 mm or better, and a missing slice is off by a whole one.
    tolerance = 0.1 * float(np.median(np.abs(along)))
    if np.abs(along - np.median(along)).max() > tolerance or tolerance == 0:
        gaps = f"{np.abs(along).min():.2f} to {np.abs(along).max():.2f} mm apart"
        raise KitsError(f"{folder}: slices are missing, doubled or uneven ({gaps}); export the whole series again")
    if np.linalg.norm(steps - along[:, None] * normal, axis=1).max() > tolerance:
        raise KitsError(f"{folder}: slices are shifted against each other (gantry tilt); resample the series first")
