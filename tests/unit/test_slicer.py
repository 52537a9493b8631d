"""What 3D Slicer opens: labels, geometry, names and colors come back through another reader, and through our own."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from kits.core.labels import CLASSES
from kits.data.index import label_maps
from kits.io import read_labels, read_volume
from kits.prediction.slicer import write_color_table, write_seg_nrrd
from kits.volume import Grid, stored_order
from tests.conftest import kidney_pair, write_case
from tests.predicting import run, write_checkpoints

TURNED = (0.0, 0.0, 1.0, 0.6, 0.8, 0.0, -0.8, 0.6, 0.0)


def test_a_segmentation_has_the_labels_geometry_names_and_colors(tmp_path: Path) -> None:
    grid = Grid((7, 6, 5), (1 / 3, 0.7, 4.9999), (0.1, -48.123456789, 3.0), TURNED)
    labels = np.zeros(grid.shape_zyx, np.uint8)
    stored = stored_order(labels, grid)  # a view
    stored[1:4, 2:5, 3:7], stored[2, 3, 4] = 1, 3
    path = tmp_path / "case.seg.nrrd"
    write_seg_nrrd(path, labels, grid, CLASSES)
    image = sitk.ReadImage(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), stored)
    assert (image.GetSize(), image.GetOrigin()) == (grid.size, grid.origin)
    np.testing.assert_allclose(image.GetSpacing(), grid.spacing, rtol=1e-15)
    np.testing.assert_allclose(image.GetDirection(), grid.direction, rtol=0, atol=1e-15)
    told = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert [told[f"Segment{index}_Name"] for index in range(3)] == ["kidney", "tumor", "cyst"]
    assert [told[f"Segment{index}_LabelValue"] for index in range(3)] == ["1", "2", "3"]
    assert [told[f"Segment{index}_Extent"] for index in range(3)] == ["3 6 2 4 1 3", "0 -1 0 -1 0 -1", "4 4 3 3 2 2"]
    assert told["Segment1_Color"] == "1 0.309804 0.258824"  # #ff4f42
    assert "~SCT^108369006^Neoplasm~" in told["Segment1_Tags"]
    assert told["Segmentation_SourceRepresentation"] == told["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert not any(key.startswith("Segment3_") for key in told)
    np.testing.assert_array_equal(read_labels(path, allowed=range(4)).array, labels)
    assert list(label_maps(tmp_path)) == ["case"], "as kits.evaluate and kits.measure find it"
    assert b"encoding: gzip" in path.read_bytes()


def test_a_color_table_names_every_label(tmp_path: Path) -> None:
    write_color_table(tmp_path / "case.ctbl", CLASSES[:3])
    lines = (tmp_path / "case.ctbl").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Color table file"
    assert lines[2:] == ["0 background 0 0 0 0", "1 kidney 54 180 255 255", "2 tumor 255 79 66 255"]


@pytest.mark.parametrize("output", ["out", "out/kidneys.nii.gz"])
def test_a_prediction_is_the_same_in_every_format(tmp_path: Path, output: str) -> None:
    scan = write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz"
    checkpoints = write_checkpoints(tmp_path)
    run(*checkpoints, f"input={scan}", f"output={tmp_path / output}", "save=[labels,seg_nrrd,color_table]")
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*") if path.suffix != ".json")
    one_file = ["kidneys.ctbl", "kidneys.nii.gz", "kidneys.seg.nrrd"]
    folder = ["case_00000.nii.gz", "color_table/case_00000.ctbl", "seg_nrrd/case_00000.seg.nrrd"]
    assert names == (one_file if output.endswith(".nii.gz") else folder)
    nifti, nrrd = (read_labels(tmp_path / "out" / name, allowed=range(3)) for name in names if not name.endswith(".ctbl"))
    assert nifti.array.any()
    np.testing.assert_array_equal(nrrd.array, nifti.array)
    assert nrrd.grid.origin == read_volume(scan).grid.origin
