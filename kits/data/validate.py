"""Is this image and label map one sound case? The first thing that is wrong, in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kits.data.index import Case
from kits.errors import KitsError
from kits.io import read_labels, read_volume
from kits.labels import BACKGROUND, KIDNEY, TUMOR
from kits.volume import Volume

# Headers of KiTS19's own pairs differ in the last digits of their floats, and in codes that mean nothing here.
SPACING_TOLERANCE_MM = 1e-3
ORIGIN_TOLERANCE_MM = 1e-1
DIRECTION_TOLERANCE = 1e-3
ABSURD_SPACING_MM = (0.1, 20.0)
MIN_SLICES = 4


def read_pair(case: Case, classes: Sequence[str]) -> tuple[Volume, Volume]:
    """Read and check the image and the label map of a case.

    Args:
        classes: names of the labels that the map may hold, from 0, `data.classes`.

    Returns:
        The image in HU and its labels, both (z, y, x).

    Raises:
        KitsError: a file is missing or damaged, or the two do not belong together; the text names the case and file.
    """
    for path in (case.image, case.label):
        if not path.is_file():
            raise KitsError(f"{path}: missing; every training case needs {case.image.name} and {case.label.name}")
    image = read_volume(case.image)
    check_image(case, image)
    label = read_labels(case.label, allowed=range(len(classes)))
    check_same_grid(case, image, label)
    check_labels(case, label)
    return image, label


def check_image(case: Case, image: Volume) -> None:
    """Spacing and HU as a CT scanner could have made them."""
    low, high = ABSURD_SPACING_MM
    if not all(low <= step <= high for step in image.spacing):
        raise KitsError(f"{case.image}: spacing {image.spacing} mm is not that of a CT; mend the header")
    if image.array.shape[0] < MIN_SLICES:
        raise KitsError(f"{case.image}: only {image.array.shape[0]} slices; is it a single picture or a scout view?")
    darkest, brightest = int(image.array.min()), int(image.array.max())
    if darkest == brightest:
        raise KitsError(f"{case.image}: every voxel is {darkest}; download the file again")
    if darkest > -500:
        raise KitsError(
            f"{case.image}: the darkest voxel is {darkest} HU, so there is no air: a missing HU offset or a windowed picture;"
            " convert it again from DICOM"
        )


def check_same_grid(case: Case, image: Volume, label: Volume) -> None:
    """Sizes equal, spacing, origin and direction equal within a tolerance."""
    if image.array.shape != label.array.shape:
        raise KitsError(
            f"{case.label}: {label.array.shape} voxels but the image has {image.array.shape}; the two are not one case"
        )
    for what, tolerance in (
        ("spacing", SPACING_TOLERANCE_MM),
        ("origin", ORIGIN_TOLERANCE_MM),
        ("direction", DIRECTION_TOLERANCE),
    ):
        of_image, of_label = getattr(image.grid, what), getattr(label.grid, what)
        if not np.allclose(of_image, of_label, rtol=0, atol=tolerance):
            raise KitsError(f"{case.label}: {what} {of_label} but the image has {of_image}; the two are not one case")


def check_labels(case: Case, label: Volume) -> None:
    """A label map without a kidney teaches nothing."""
    top = int(label.array.max())
    if top == BACKGROUND:
        raise KitsError(f"{case.label}: no kidney in it (label {KIDNEY}, tumor is {TUMOR}); leave the case out with data.exclude")
