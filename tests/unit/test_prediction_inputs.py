"""What there is to segment at a path, under names that cannot leave the output folder."""

import os
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from kits.config.composing import checked
from kits.core.errors import KitsError
from kits.data.scans import Scan, find_inputs, safe_name, unique
from kits.prediction.outputs import Outputs
from tests.conftest import kidney_pair
from tests.dicoms import write_series

HU = kidney_pair(0)[0][:6, :16, :16]


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(HU), path)
    return path


def test_every_format_of_a_folder_is_found_and_hidden_files_are_not(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii.gz", "c.nrrd", "d.mha", "e.mhd", ".f.nii.gz"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("nothing")
    write_series(tmp_path / "deep" / "series", HU)
    inputs = find_inputs(tmp_path)
    assert list(inputs.scans) == ["a", "b", "c", "d", "e", "deep_series"]
    assert all(scan.read().array.shape == HU.shape for scan in inputs.scans.values())
    assert {item.path.name for item in inputs.skipped} == {".f.nii.gz", "notes.txt"}


def test_a_tree_of_cases_gives_its_images_alone_and_names_those_without(kits_tree: Path, tmp_path: Path) -> None:
    assert list(find_inputs(kits_tree).scans) == [f"case_{number:05d}" for number in range(4)]
    assert list(find_inputs(kits_tree / "case_00002").scans) == ["case_00002"]
    assert list(find_inputs(kits_tree, ["case_00003"]).scans) == ["case_00003"]
    (tmp_path / "case_00000").mkdir()
    (tmp_path / "case_00001").symlink_to(kits_tree / "case_00001")
    inputs = find_inputs(tmp_path)
    assert list(inputs.scans) == ["case_00001"]
    assert "case_00000: no imaging.nii.gz" in str(inputs.skipped[0])


def test_the_records_of_a_tree_are_not_told_as_skipped(kits_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(kits_tree, tree)
    (tree / "kits.json").write_text("[]")
    (tree / "notes.txt").write_text("x")
    assert "notes.txt: no case" in " ".join(str(item) for item in find_inputs(tree).skipped)
    assert "kits.json" not in " ".join(str(item) for item in find_inputs(tree).skipped)


def test_a_list_names_files_and_folders(kits_tree: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.nrrd")
    (tmp_path / "list.txt").write_text(f"# two\n\na.nrrd\n{kits_tree}\nabsent.nii.gz\na.nrrd\n")
    inputs = find_inputs(tmp_path / "list.txt")
    assert list(inputs.scans) == ["a", "case_00000", "case_00001", "case_00002", "case_00003", "absent"]
    with pytest.raises(KitsError, match=r"absent\.nii\.gz: no such file"):
        inputs.scans["absent"].read()


def test_whatever_a_list_names_is_a_scan_or_told(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text(f"a.nii.gz\nempty\n{'x' * 300}\n")
    inputs = find_inputs(tmp_path / "list.txt")
    assert [name[:9] for name in inputs.scans] == ["a", "x" * 9]
    assert [str(item) for item in inputs.skipped] == [f"{tmp_path / 'empty'}: an empty folder; copy it again"]
    with pytest.raises(KitsError, match="cannot be opened"):
        list(inputs.scans.values())[1].read()


def test_slices_that_an_anonymiser_made_series_of_are_told_once(tmp_path: Path) -> None:
    for k, plane in enumerate(HU):
        write_series(tmp_path / "ct", plane[None], series=f"s{k}", SeriesDescription="x", positions=[(0, 0, 4.0 * k)])
    with pytest.raises(KitsError, match=r"/ct: series 1 \(x, 1 file\(s\)\): only one slice \(6 times\);"):
        find_inputs(tmp_path / "ct")


def test_two_series_of_a_folder_get_names_of_their_own(tmp_path: Path) -> None:
    for number in (2, 3):
        write_series(tmp_path / "ct", HU, series=f"phase {number}", number=number)
    assert list(find_inputs(tmp_path / "ct").scans) == ["ct_series2", "ct_series3"]
    write_series(tmp_path / "ct", HU, series="copy", number=3)
    names = list(find_inputs(tmp_path / "ct").scans)
    assert len(set(names)) == 3
    assert names == list(find_inputs(tmp_path / "ct").scans)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b\\c",
        "x\n\x1b[31m\0y",
        "-rf",
        "~",
        "con:",
        " ",
        "ß" * 400,
        "a" * 400,
        ".hidden",
    ],
)
def test_no_name_leaves_the_output_folder(name: str, tmp_path: Path) -> None:
    (only,) = unique([Scan(name, Path("x"))])
    outputs = Outputs.of(tmp_path / "out", ["labels"], dicom_seg=True)
    for path in (outputs.place("labels", only, ".nii.gz"), outputs.place("dicom_seg", only, ".dcm"), outputs.entry(only)):
        assert path.resolve().is_relative_to((tmp_path / "out").resolve())
        assert path.name.isprintable()
        assert not path.name.startswith((".", "-"))
        assert len(path.name.encode()) < 200
    assert safe_name(only) == only


def test_names_that_a_file_system_could_take_for_one_are_told_apart() -> None:
    scans = [Scan("Scan", Path("a/Scan.nii")), Scan("scan", Path("b/scan.nrrd")), Scan("scan", Path("c/scan.nrrd"))]
    names = list(unique(scans))
    assert len({name.casefold() for name in names}) == 3
    assert set(unique(scans[:2])) < set(names), "a name does not change when another scan comes"


def test_what_holds_no_scan_is_refused_with_its_reason(tmp_path: Path, kits_tree: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_series(tmp_path / "mr", HU, Modality="MR")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\x00")
    for path, words in (
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path / "empty", "no scan in it"),
        (tmp_path / "mr", "modality MR, not CT"),
        (tmp_path / "binary.txt", "no text"),
    ):
        with pytest.raises(KitsError, match=words) as caught:
            find_inputs(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(KitsError, match=r"no scan of '\.\./\.\./x'"):
        find_inputs(kits_tree, ["../../x"])


def test_an_output_never_replaces_an_input(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nii.gz")
    write_image(tmp_path / "b.nrrd")
    scans = find_inputs(tmp_path).scans
    for output in (tmp_path, tmp_path / "a.nii.gz"):
        with pytest.raises(KitsError, match=r"would replace an input|one file for 2 inputs"):
            Outputs.of(output, ["labels"], dicom_seg=False).refuse_collisions(tmp_path, scans)
    outputs = Outputs.of(tmp_path / "in" / ".." / "in", ["labels"], dicom_seg=False)
    write_image(tmp_path / "in" / "b.nrrd")
    with pytest.raises(KitsError, match="holds the inputs, and results would pass for scans there"):
        outputs.refuse_collisions(tmp_path / "in", find_inputs(tmp_path / "in").scans)
    for name in ("x.nii", "x.mha", "x.NRRD"):
        with pytest.raises(KitsError, match=r"written as \.nii\.gz; give a name that ends in it, or a folder"):
            Outputs.of(tmp_path / name, "labels", dicom_seg=False)
    for save in ("[]", "[labels,everything]"):
        with pytest.raises(KitsError, match="save"):
            checked("predict", ["coarse=x", "fine=x", "input=x", "output=x", f"save={save}"])


def test_a_changed_input_is_another_one(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.nii")
    scan = find_inputs(path).scans["a"]
    before = scan.identity()
    assert before == scan.identity()
    os.utime(path, ns=(0, 0))
    assert scan.identity() != before
    path.unlink()
    assert scan.identity() == {}
