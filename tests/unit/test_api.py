"""Four lines of Python segment a scan, as the README says, and importing the package costs nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kits
from kits.io import read_labels
from tests.conftest import kidney_pair, write_case
from tests.predicting import run, write_checkpoints


def test_load_segment_look_save(tmp_path: Path) -> None:
    scan = write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz"
    coarse, fine = (text.partition("=")[2] for text in write_checkpoints(tmp_path))

    volume = kits.read(scan)
    result = kits.load(coarse, [fine], device="cpu").segment(volume)
    figure = kits.show(volume, result, tmp_path / "look.png")
    kits.save(tmp_path / "kidneys.nii.gz", result, volume)

    assert figure.axes
    assert (tmp_path / "look.png").stat().st_size > 1000
    np.testing.assert_array_equal(read_labels(tmp_path / "kidneys.nii.gz", allowed=range(3)).array, result.labels)
    run(f"coarse={coarse}", f"fine={fine}", f"input={scan}", f"output={tmp_path / 'command.nii.gz'}")
    assert (tmp_path / "command.nii.gz").read_bytes() == (tmp_path / "kidneys.nii.gz").read_bytes()


def test_the_package_imports_no_library() -> None:
    code = "import sys, kits; print(sorted({'torch', 'numpy', 'SimpleITK', 'hydra'} & set(sys.modules)), dir(kits) != [])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout == "[] True\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kits.nothing  # noqa: B018


def test_what_is_refused_can_be_caught_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(kits.KitsError, match=r"scan\.nii\.gz"):
        kits.read(tmp_path / "scan.nii.gz")
