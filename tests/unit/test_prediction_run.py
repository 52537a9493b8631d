"""Many scans in one run: what is written, told and skipped, and that a damaged scan stops no other."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import kits
from kits.core.errors import KitsError
from kits.io import read_labels
from kits.prediction.segmenting import predict_labels
from kits.readout.cohort import readout_of
from tests.conftest import kidney_pair, write_case
from tests.dicoms import write_series
from tests.predicting import config_of, run, write_checkpoint, write_checkpoints


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two cases, small enough to be segmented in no time."""
    for number in range(2):
        write_case(tmp_path / "tree", f"case_{number:05d}", *kidney_pair(number))
    return tmp_path / "tree"


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_the_report_tells_of_every_case(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(*checkpoints, f"input={tree}", f"output={out}")
    report = report_of(out)
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert [len(hashes) for hashes in report["checkpoints"].values()] == [1, 1]
    assert sorted(report["cases"]) == ["case_00000", "case_00001"]
    case = report["cases"]["case_00001"]
    assert {"read", "coarse", "fine", "write"} <= set(case["seconds"])
    assert case["peak_memory"]["process_mib"] > 50
    assert case["boxes"]
    labels = read_labels(out / case["outputs"]["labels"][0], allowed=range(3)).array
    assert case["volumes_ml"]["kidney"] == pytest.approx((labels > 0).sum() * 4 * 1.5 * 1.5 / 1000, abs=0.01)
    assert not list(out.rglob(".*"))


def test_finished_cases_are_skipped_until_something_changes(
    checkpoints: list[str], tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def changed(*overrides: str) -> list[str]:
        before = {path.name: path.stat().st_mtime_ns for path in out.glob("case_*")}
        run(*checkpoints, f"input={tree}", f"output={out}", *overrides)
        return sorted(path.name for path in out.glob("case_*") if path.stat().st_mtime_ns != before.get(path.name))

    both = ["case_00000.nii.gz", "case_00001.nii.gz"]
    assert changed() == both
    capsys.readouterr()
    assert changed() == []
    assert "2 of 2 inputs are finished" in capsys.readouterr().out
    assert changed("overwrite=true") == both
    (out / both[0]).unlink()
    assert changed() == both[:1]
    os.utime(tree / "case_00001" / "imaging.nii.gz")
    assert changed() == both[1:]
    assert changed("margin_mm=3") == both
    assert changed("margin_mm=3") == []
    other = write_checkpoint(tmp_path / "other.ckpt", "fine", seed=1)
    assert changed("margin_mm=3", f"fine={other}") == both
    assert report_of(out)["checkpoints"] == report_of(out)["cases"]["case_00000"]["made_with"]["checkpoints"]


def test_every_format_gives_the_same_labels_in_its_own_grid(checkpoints: list[str], tmp_path: Path) -> None:
    import SimpleITK as sitk

    hu = kidney_pair(0)[0]
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((1.5, 1.5, 4.0))
    image.SetOrigin((-48, -48, 0))
    (tmp_path / "in").mkdir()
    for name in ("a.nii", "b.nii.gz", "c.nrrd", "d.mha", "e.mhd"):
        sitk.WriteImage(image, tmp_path / "in" / name)
    write_series(tmp_path / "in" / "f", hu)
    run(*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    results = {name: sitk.ReadImage(tmp_path / "out" / f"{name}.nii.gz") for name in "abcdef"}
    assert sitk.GetArrayFromImage(results["a"]).any()
    for result in results.values():
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(result), sitk.GetArrayViewFromImage(results["a"]))
        assert (result.GetSpacing(), result.GetOrigin()) == (image.GetSpacing(), image.GetOrigin())


def test_one_file_goes_to_the_name_that_is_given(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    scan = tree / "case_00000" / "imaging.nii.gz"
    run(*checkpoints, f"input={scan}", f"output={tmp_path / 'out' / 'kidneys.nii.gz'}")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["kidneys.json", "kidneys.nii.gz"]
    assert nibabel.load(tmp_path / "out" / "kidneys.nii.gz").shape == nibabel.load(scan).shape


def test_a_damaged_case_is_told_of_and_its_older_result_goes(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [*checkpoints, f"input={tree}", f"output={out}"]
    run(*arguments)
    broken = tree / "case_00000" / "imaging.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1000])
    with pytest.raises(KitsError, match=r"1 of 2 inputs could not be segmented, the first: .*case_00000.*incomplete"):
        run(*arguments, "overwrite=true")
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["case_00001.nii.gz"]
    report = report_of(out)
    assert list(report["cases"]) == ["case_00001"]
    assert str(broken) in report["failed"]["case_00000"]["error"]
    broken.write_bytes(whole)
    run(*arguments)
    assert list(report_of(out)["cases"]) == ["case_00000", "case_00001"]
    assert not report_of(out)["failed"]


def test_an_entry_that_names_foreign_files_removes_none(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    witness.write_text("stay")
    out = tmp_path / "out"
    (out / "report").mkdir(parents=True)
    entry = {"status": "ok", "outputs": {"labels": ["../witness", str(witness)]}}
    (out / "report" / "case_00000.json").write_text(json.dumps(entry))
    (tree / "case_00000" / "imaging.nii.gz").write_bytes(b"")
    with pytest.raises(KitsError, match="1 of 2"):
        run(*checkpoints, f"input={tree}", f"output={out}")
    assert witness.exists()


def test_shards_join_into_one_report(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    for shard in range(2):
        run(*checkpoints, f"input={tree}", f"output={tmp_path / 'out'}", f"shard={shard}", "shards=2")
        assert len(report_of(tmp_path / "out")["cases"]) == shard + 1


def test_what_is_wrong_with_the_command_is_said_before_anything_is_written(
    checkpoints: list[str], tree: Path, tmp_path: Path
) -> None:
    coarse, fine = (text.partition("=")[2] for text in checkpoints)
    for overrides, words in (
        ([f"coarse={fine}"], "swapped"),
        (["fine=[]"], "fine: no "),
        (["save=[everything]"], "save="),
        (["shard=2", "shards=2"], "shard=2"),
        ([f"output={tmp_path / 'x.nii.gz'}"], "one file for 2 inputs"),
        (["submission=true"], "no scan of 'case_00210'"),
        (["device=nonsense"], "device=nonsense"),
    ):
        with pytest.raises(KitsError, match=words):
            predict_labels(
                config_of(f"coarse={coarse}", f"fine={fine}", f"input={tree}", f"output={tmp_path / 'out'}", *overrides)
            )
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_maps_are_saved_in_the_scans_grid_as_values_from_0_to_1(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    coarse, fine = (text.partition("=")[2] for text in checkpoints)
    other = write_checkpoint(tmp_path / "other.ckpt", "fine", seed=1)
    out = tmp_path / "out"
    both = [f"coarse={coarse}", f"fine=[{fine},{other}]", f"input={tree}", "cases=0", f"output={out}"]
    run(*both, "save=[labels,probabilities,uncertainty]", "min_component_ml=0")
    case = report_of(out)["cases"]["case_00000"]
    assert len(case["made_with"]["checkpoints"]["fine"]) == 2
    assert set(case["outputs"]) == {"labels", "probabilities", "uncertainty"}
    scan = nibabel.load(tree / "case_00000" / "imaging.nii.gz")
    maps = {Path(name).name: nibabel.load(out / name) for names in case["outputs"].values() for name in names}
    assert {"case_00000.nii.gz", "case_00000_kidney.nii.gz", "case_00000_tumor.nii.gz", "case_00000_entropy.nii.gz"} <= set(maps)
    for name, image in maps.items():
        np.testing.assert_array_equal(image.affine, scan.affine)
        if name != "case_00000.nii.gz":
            assert image.get_data_dtype() == np.uint8
            values = image.get_fdata()
            assert 0 <= values.min() <= values.max() <= 1 + 1e-6
            assert values.any(), "random networks are in doubt everywhere"


def test_labels_come_back_with_the_ids_of_the_training_data(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    fine = write_checkpoint(tmp_path / "own.ckpt", "fine", "data.labels={kidney:[5,4],tumor:9}")
    out, both = tmp_path / "out", [f"input={tree}", "cases=0", "min_component_ml=0", f"output={tmp_path / 'out'}"]
    run(checkpoints[0], f"fine={fine}", *both, "save=[labels,own_ids]")
    ours = nibabel.load(out / "case_00000.nii.gz").get_fdata()
    own = nibabel.load(out / "own_ids" / "case_00000.nii.gz").get_fdata()
    assert ours.any()
    np.testing.assert_array_equal(own, np.array([0, 4, 9])[ours.astype(int)])
    with pytest.raises(KitsError, match="save=own_ids: the fine checkpoint was trained on KiTS's own ids"):
        run(*checkpoints, f"input={tree}", f"output={tmp_path / 'none'}", "save=own_ids")
    assert not (tmp_path / "none").exists()


def test_an_output_that_cannot_be_written_costs_no_other(checkpoints: list[str], tmp_path: Path) -> None:
    """A segmentation object needs a frame of reference; the label map does not."""
    write_series(tmp_path / "in" / "ct", kidney_pair(0)[0], FrameOfReferenceUID=None)
    call = [*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    (tmp_path / "out" / "dicom_seg").mkdir(parents=True)
    (tmp_path / "out" / "dicom_seg" / "ct.dcm").write_text("of an earlier run")
    with pytest.raises(KitsError, match="1 of 1 inputs lack an output that was asked for, the first: dicom_seg of ct: "):
        run(*call, "dicom_seg=true")
    (case,) = report_of(tmp_path / "out")["cases"].values()
    assert case["outputs"] == {"labels": ["ct.nii.gz"]}
    assert "no Frame Of Reference" in case["not_written"]["dicom_seg"]
    assert read_labels(tmp_path / "out" / "ct.nii.gz", allowed=range(3)).array.shape == (20, 64, 64)
    assert not (tmp_path / "out" / "dicom_seg" / "ct.dcm").exists()
    (tmp_path / "out" / "uncertainty").write_text("no folder")
    with pytest.raises(KitsError, match=r"lack an output .*uncertainty of ct"):
        run(*call, "save=[uncertainty,labels]")
    (case,) = report_of(tmp_path / "out")["cases"].values()
    assert list(case["outputs"]) == ["labels"]


def test_what_was_found_out_about_a_series_is_in_the_report(checkpoints: list[str], tmp_path: Path) -> None:
    hu = kidney_pair(0)[0]
    places = [(-48.0, -48.0, 4.0 * k) for k in range(20)]
    write_series(tmp_path / "in" / "1", hu[:9], positions=places[:9])
    write_series(tmp_path / "in" / "2", hu[9:], positions=places[9:])
    (tmp_path / "in" / "2" / "letter.pdf").write_bytes(b"%PDF")
    run(*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    report = report_of(tmp_path / "out")
    assert "20 files lie in 2 folders" in report["cases"]["in"]["warnings"][0]
    assert [Path(item["path"]).name for item in report["skipped"]] == ["letter.pdf"]


def test_the_report_holds_the_readout_where_it_is_asked_for(checkpoints: list[str], tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(*checkpoints, f"input={tree}", f"output={out}", "cases=[case_00000]")
    assert "readout" not in report_of(out)["cases"]["case_00000"]
    run(*checkpoints, f"input={tree}", f"output={out}", "cases=[case_00000]", "measure=true")
    case = report_of(out)["cases"]["case_00000"]
    volume = kits.read(tree / "case_00000" / "imaging.nii.gz")
    labels = read_labels(out / "case_00000.nii.gz", allowed=range(3))
    assert case["readout"] == readout_of(labels.array, volume)
    assert [kidney["side"] for kidney in case["readout"]["kidneys"]] == ["right", "left"]
    assert case["seconds"]["readout"] > 0
