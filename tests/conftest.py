"""Small data that the tests share: a KiTS tree of ellipsoids, made once a session."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real label maps and scans, where this checkout has them beside it."""
    if not SHARED.is_dir():
        pytest.skip("no shared data beside this checkout")
    return SHARED


def ellipsoid(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Bool (z, y, x)."""
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grids, centre, radii, strict=True)) <= 1


def kidney_pair(seed: int, shape: tuple[int, int, int] = (20, 64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A crude CT (z, y, x) int16 in HU and its labels uint8: body, two kidneys, a tumor in the left one."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-1, 1, 3)
    labels = np.zeros(shape, np.uint8)
    for side in (-1, 1):
        middle = (centre[0], centre[1], centre[2] + side * shape[2] / 5)
        labels[ellipsoid(shape, middle, (shape[0] / 3, 8, 6))] = 1
    tumor = (centre[0], centre[1] + 5, centre[2] + shape[2] / 5)
    labels[ellipsoid(shape, tumor, (3, 5, 5))] = 2
    hu = np.full(shape, -1000, np.int16)
    hu[ellipsoid(shape, tuple(centre), (10 * shape[0], 26, 30))] = -50
    hu[labels == 1], hu[labels == 2] = 180, 60
    hu += rng.normal(0, 8, shape).astype(np.int16)
    return hu, labels


def write_case(root: Path, case: str, hu: np.ndarray, labels: np.ndarray, spacing: tuple[float, ...] = (4.0, 1.5, 1.5)) -> Path:
    """Write one case with KiTS19's slice-first axes; arrays and spacing are (z, y, x) in LPS."""
    folder = root / case
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("imaging", hu), ("segmentation", labels)):
        # Index axes (i, j, k) = (slice, row, column): numpy sees them reversed.
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        image.SetSpacing([float(step) for step in spacing])
        image.SetDirection((0, 0, 1, 0, 1, 0, 1, 0, 0))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return folder


@pytest.fixture(scope="session")
def kits_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small cases in KiTS19's layout and axis order."""
    root = tmp_path_factory.mktemp("kits")
    for number in range(4):
        write_case(root, f"case_{number:05d}", *kidney_pair(number))
    return root


def prepare(data: dict[str, Any]) -> dict[str, Any]:
    """Prepare the cache of a plain group `data`."""
    from kits.config.schema import parse
    from kits.config.schema.dataset import Data
    from kits.data import preparation

    return preparation.prepare(parse(Data, data, "data"))


def training_options(config: list[str] | dict[str, Any]) -> Any:
    """The typed options of a training, from overrides or from a plain configuration."""
    from kits.config.composing import compose
    from kits.config.schema import parse
    from kits.config.schema.training import Train

    return parse(Train, compose("train", config) if isinstance(config, list) else config)


def data_of(config: list[str] | dict[str, Any]) -> Any:
    """The data module of a training, its cache read."""
    from kits.training.datamodule import KitsDataModule

    data = KitsDataModule(training_options(config))
    data.setup()
    return data
