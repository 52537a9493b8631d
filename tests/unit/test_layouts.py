"""Data sets as they lie: nnU-Net's, the Decathlon's, BIDS, pairs by patterns; own ids of cases and of labels."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from kits.config.composing import checked, compose
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.core.labels import classes_by_id
from kits.data.converting import convert
from kits.data.layouts import find_data_set
from kits.io import read_labels
from kits.metrics.folder_scores import evaluate
from kits.workflows.plan import PREPARED, TRUTH, StepBuilder, assigned, configured, data_of
from tests.conftest import prepare

CASES = ("patient_017", "TCGA-B0-4700")


def copied(kits_tree: Path, number: int, image: Path, label: Path | None) -> None:
    """Put the files of a case of the tree elsewhere."""
    for name, place in (("imaging", image), ("segmentation", label)):
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kits_tree / f"case_{number:05d}" / f"{name}.nii.gz", place)


def typed(root: Path, layout: str, **changes: object) -> Data:
    """As `group`, typed."""
    return parse(Data, group(root, layout, **changes))


def group(root: Path, layout: str, **changes: object) -> dict:
    """The real group `data` of a layout, for small cases, plain."""
    data = compose("prepare", [f"data={layout}", f"data.root={root}", f"data.cache={root.parent / 'cache'}"])["data"]
    data["coarse_size"], data["workers"], data["roi_rule"]["min_voxels"] = 32, 1, 100
    return {**data, **changes}


def nnunet_tree(kits_tree: Path, root: Path, labels: dict) -> Path:
    for number, case in enumerate(CASES):
        copied(kits_tree, number, root / f"imagesTr/{case}_0000.nii.gz", root / f"labelsTr/{case}.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_nnunets_cases_are_found_and_the_rest_is_named(kits_tree: Path, tmp_path: Path) -> None:
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"background": 0, "kidney": 1, "tumor": 2})
    copied(kits_tree, 2, root / "imagesTr/alone_0000.nii.gz", None)
    copied(kits_tree, 2, root / "imagesTr/patient_017_0001.nii.gz", None)
    copied(kits_tree, 2, root / "imagesTr/odd.nii.gz", root / "labelsTr/nobody.nii.gz")
    copied(kits_tree, 3, root / "imagesTs/unseen_0000.nii.gz", None)
    found = find_data_set(typed(root, "nnunet"), root)
    assert list(found.cases) == sorted(CASES)
    assert found.cases["patient_017"].label == root / "labelsTr/patient_017.nii.gz"
    left_out = {item.path.name: item.why for item in found.left_out}
    assert set(left_out) == {"alone_0000.nii.gz", "patient_017_0001.nii.gz", "odd.nii.gz", "nobody.nii.gz", "imagesTs"}
    assert left_out["patient_017_0001.nii.gz"] == "another channel than the CT's, 0000"
    assert left_out["nobody.nii.gz"] == "a label map without an image"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": {"kidney": "1"}}, r"its label 'kidney' is '1'; give a whole number"),
        ({"labels": {"0": "background", "one": "kidney"}}, r"its label 'one' is 'kidney'; give a number and its name"),
        ({"channel_names": {"0": "T1", "1": "PET"}}, r"which of its channels \(T1, PET\) is the CT\? Call one of them CT"),
    ],
)
def test_a_dataset_json_that_does_not_say_it_is_one_line(kits_tree: Path, tmp_path: Path, changes: dict, told: str) -> None:
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"background": 0, "kidney": 1})
    about = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    (root / "dataset.json").write_text(json.dumps(about | changes))
    with pytest.raises(KitsError, match=rf"^{root}/dataset\.json: {told}"):
        find_data_set(typed(root, "nnunet"), root)


def test_the_ct_is_the_channel_that_is_called_so_and_names_by_id_are_read_too(kits_tree: Path, tmp_path: Path) -> None:
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"0": "background", "1": "kidney", "2": "tumor"})
    about = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    (root / "dataset.json").write_text(json.dumps(about | {"channel_names": {"0": "T2", "1": "CT"}}))
    for number, case in enumerate(CASES):
        copied(kits_tree, number, root / f"imagesTr/{case}_0001.nii.gz", None)
    found = find_data_set(typed(root, "nnunet"), root)
    assert {case.image.name for case in found.cases.values()} == {f"{case}_0001.nii.gz" for case in CASES}
    assert found.named == {"background": 0, "kidney": 1, "tumor": 2}


def test_the_decathlons_cases_are_those_that_it_lists(kits_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1):
        copied(kits_tree, number, tmp_path / f"imagesTr/kidney_{number}.nii.gz", tmp_path / f"labelsTr/kidney_{number}.nii.gz")
    listed = [{"image": "./imagesTr/kidney_0.nii.gz", "label": "./labelsTr/kidney_0.nii.gz"}]
    about = {"labels": {"0": "background", "1": "kidney", "2": "tumor"}, "training": listed, "test": []}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    found = find_data_set(typed(tmp_path, "msd"), tmp_path)
    assert list(found.cases) == ["kidney_0"]
    assert [item.path.name for item in found.left_out] == ["kidney_1.nii.gz"]  # a label map that is not listed
    (tmp_path / "imagesTr/kidney_0.nii.gz").unlink()
    (tmp_path / "imagesTr/kidney_0.nii.gz").symlink_to(kits_tree / "case_00000/imaging.nii.gz")  # as git-annex lays its files
    assert list(find_data_set(typed(tmp_path, "msd"), tmp_path).cases) == ["kidney_0"]
    about["training"] = [{"image": "../x.nii.gz", "label": "./labelsTr/kidney_0.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path(".")):
        with pytest.raises(KitsError, match="outside of its folder"):
            find_data_set(typed(root, "msd"), root)


def test_scans_and_label_maps_of_bids_meet_by_their_entities(kits_tree: Path, tmp_path: Path) -> None:
    copied(
        kits_tree,
        0,
        tmp_path / "sub-01/ses-a/ct/sub-01_ses-a_ct.nii.gz",
        tmp_path / "derivatives/us/sub-01/ses-a/sub-01_ses-a_desc-x_dseg.nii.gz",
    )
    copied(kits_tree, 1, tmp_path / "sub-01/ses-b/ct/sub-01_ses-b_ct.nii.gz", None)
    copied(kits_tree, 1, tmp_path / "derivatives/us/sub-01/sub-01_ses-b_label-kidney_mask.nii.gz", None)
    found = find_data_set(typed(tmp_path, "bids"), tmp_path)
    assert list(found.cases) == ["sub-01_ses-a"]
    assert [item.path.name for item in found.left_out] == ["sub-01_ses-b_label-kidney_mask.nii.gz", "sub-01_ses-b_ct.nii.gz"]


@pytest.mark.parametrize("layout", ["bids", "pairs"])
def test_a_scan_with_two_label_maps_is_named_and_the_others_are_converted(kits_tree: Path, tmp_path: Path, layout: str) -> None:
    root, changes = tmp_path / "raw", {}
    if layout == "bids":
        for number, ways in enumerate((("a",), ("a", "b"))):
            for way in ways:
                one = f"sub-{number}/sub-{number}"
                copied(kits_tree, number, root / f"{one}_ct.nii.gz", root / f"derivatives/{way}/{one}_desc-{way}_dseg.nii.gz")
    else:  # a/b_c and a_b/c are one id
        changes = {"images": "ct/*_*.nii.gz", "label_maps": "*/seg_*.nii.gz"}
        copied(kits_tree, 0, root / "ct/sub_0.nii.gz", root / "sub/seg_0.nii.gz")
        copied(kits_tree, 1, root / "ct/a_b_c.nii.gz", root / "a/seg_b_c.nii.gz")
        copied(kits_tree, 1, root / "ct/a_b_c.nii.gz", root / "a_b/seg_c.nii.gz")
    told = (
        rf"^1 of 2 cases could not be converted \(data\.skip_invalid=true .*, the first: (sub-1|a_b_c): {root}/.* same scan; take"
    )
    with pytest.raises(KitsError, match=told):
        convert(typed(root, layout, **changes), root, tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree").glob("*/")] == [{"bids": "sub-0", "pairs": "sub_0"}[layout]]
    said = convert(typed(root, layout, **changes, skip_invalid=True), root, tmp_path / "tree")
    assert said.count("left out:") == 1
    with pytest.raises(KitsError, match=r"^1 of 2 cases are damaged, the first: .* is of the same scan"):
        prepare(group(root, layout, **changes))


def test_pairs_meet_by_what_the_star_stands_for(kits_tree: Path, tmp_path: Path) -> None:
    for number, case in enumerate(CASES):
        copied(kits_tree, number, tmp_path / f"ct/{case}.nii.gz", tmp_path / f"ct/{case}_seg.nii.gz")
    data = group(tmp_path, "pairs", images="ct/*.nii.gz", label_maps="ct/*_seg.nii.gz")
    found = find_data_set(parse(Data, data), tmp_path)
    assert {name: case.label.name for name, case in found.cases.items()} == {case: f"{case}_seg.nii.gz" for case in CASES}
    assert not found.left_out
    with pytest.raises(KitsError, match=r"data\.label_maps=null: give a pattern"):
        find_data_set(parse(Data, {**data, "label_maps": None}), tmp_path)
    with pytest.raises(KitsError, match=r"has 2 \* and"):
        find_data_set(parse(Data, {**data, "label_maps": "*/*_seg.nii.gz"}), tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a" * 120, "at most 100"),
        ("x y", "letters, digits"),
        ("a..b", "letters, digits"),
        ("123", "more than digits"),
        ("a\x1b", "letters"),
    ],
)
def test_an_id_that_is_no_safe_text_is_refused(kits_tree: Path, tmp_path: Path, name: str, what: str) -> None:
    shutil.copytree(kits_tree / "case_00000", tmp_path / "tree" / name)
    with pytest.raises(KitsError, match=what) as caught:
        find_data_set(typed(tmp_path / "tree", "kits19"), tmp_path / "tree")
    assert str(caught.value).isprintable()


def test_ids_that_differ_by_capitals_only_are_refused(kits_tree: Path, tmp_path: Path) -> None:
    for name in ("Patient", "patient"):
        shutil.copytree(kits_tree / "case_00000", tmp_path / "tree" / name)
    with pytest.raises(KitsError, match="rename one"):
        find_data_set(typed(tmp_path / "tree", "kits19"), tmp_path / "tree")


def test_what_ids_mean_follows_the_regions() -> None:
    assert classes_by_id({"kidney": [1, 2], "tumor": [3], "cyst": [4]}) == {0: 0, 1: 1, 2: 1, 3: 2, 4: 3}
    assert classes_by_id({"kidney": [1, 2, 3], "masses": [2, 3], "tumor": [2]}) == {0: 0, 1: 1, 2: 2, 3: 3}  # KiTS23 in nnU-Net
    with pytest.raises(KitsError, match="tumor's id and a cyst's"):
        classes_by_id({"kidney": [1], "tumor": [2], "cyst": [2]})
    with pytest.raises(KitsError, match="no id is left for kidney"):
        classes_by_id({"kidney": [1], "tumor": [1]})


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("{kidney:1,tumor:2,cyst:3}", "data.classes has no cyst"),
        ("{kidney:1,tumor:1}", "no id is left for kidney"),
        ("{tumor:1}", "data.labels.kidney: no value given"),
        ("{kidney:[1,300]}", "data.labels.kidney=[1,300]: give an id from 1 to 255"),
        ("{kidney:1,lesion:2}", "data.labels.lesion: no such key"),
    ],
)
def test_a_map_of_labels_that_cannot_be_is_refused(labels: str, told: str) -> None:
    with pytest.raises(KitsError) as caught:
        checked("prepare", [f"data.labels={labels}"])
    assert told in str(caught.value)


def own_tree(kits_tree: Path, root: Path) -> Path:
    """Two cases with ids of their own: one kidney 1, the other 2, tumor 3."""
    for number, name in enumerate(CASES):
        folder = root / name
        shutil.copytree(kits_tree / f"case_{number:05d}", folder)
        image = sitk.ReadImage(str(folder / "segmentation.nii.gz"))
        labels = sitk.GetArrayFromImage(image)
        halves = np.arange(labels.shape[0])[:, None, None] >= labels.shape[0] // 2  # columns, as the axes are stored
        moved = sitk.GetImageFromArray(
            np.select([labels == 2, (labels == 1) & halves, labels == 1], [3, 2, 1], 0).astype(np.uint8)
        )
        moved.CopyInformation(image)
        sitk.WriteImage(moved, str(folder / "segmentation.nii.gz"))
    return root


def test_own_label_ids_become_ours_in_the_cache(kits_tree: Path, tmp_path: Path) -> None:
    root = own_tree(kits_tree, tmp_path / "own")
    with pytest.raises(KitsError, match="label values 3 are not among"):
        prepare(group(root, "kits19"))
    index = prepare(group(root, "kits19", labels={"kidney": [1, 2], "tumor": [3]}))
    assert index["settings"]["labels"] == {"kidney": [1, 2], "tumor": [3]}
    ours = prepare(group(kits_tree, "kits19", cache=str(tmp_path / "ours")))
    for number, name in enumerate(CASES):
        case, other = index["cases"][name], ours["cases"][f"case_{number:05d}"]
        assert case["statistics"]["tumor_ml"] == other["statistics"]["tumor_ml"] > 0
        assert case["statistics"]["kidney_ml"] == other["statistics"]["kidney_ml"] > 0
        assert case["key"] != other["key"]


def test_a_truth_with_ids_of_its_own_is_scored_by_what_they_mean(kits_tree: Path, tmp_path: Path) -> None:
    root = own_tree(kits_tree, tmp_path / "own")
    for number, name in enumerate(CASES):
        copied(kits_tree, number, tmp_path / "unused.nii.gz", tmp_path / f"predictions/{name}.nii.gz")
    given = [f"prediction={tmp_path / 'predictions'}", f"truth={root}", f"output={tmp_path / 'scores'}", "workers=1"]
    evaluate(checked("evaluate", [*given, "data.labels={kidney:[1,2],tumor:3}"]))
    summary = json.loads((tmp_path / "scores/summary.json").read_text(encoding="utf-8"))
    assert summary["kidney"] == summary["tumor"] == 1.0
    assert (tmp_path / "scores/cases.csv").read_text(encoding="utf-8").count("patient_017") == 1


def test_a_data_set_with_other_ids_asks_for_their_meaning(kits_tree: Path, tmp_path: Path) -> None:
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"background": 0, "Tumour": 1, "kidney": 2})
    with pytest.raises(KitsError, match=r"add 'data.labels=\{tumor:\[1\],kidney:\[2\]\}'"):
        prepare(group(root, "nnunet"))
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"background": 0, "kidney": 1, "lesion": 2})
    with pytest.raises(KitsError, match=r"data\.labels: 7 is no id of this data set; its dataset.json has .*kidney=1, lesion=2$"):
        convert(typed(root, "nnunet", labels={"kidney": [1, 7], "tumor": [2]}), root, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    with pytest.raises(KitsError, match="its label lesion=2 is none that is known"):
        prepare(group(root, "nnunet"))


def test_ids_that_no_case_has_are_told(kits_tree: Path, tmp_path: Path) -> None:
    data = group(kits_tree, "kits19", cache=str(tmp_path), labels={"kidney": [1], "tumor": [2, 7]})
    with pytest.raises(KitsError, match=r"data\.labels: no label map has the id 7"):
        prepare(data)


def test_converted_files_are_linked_or_the_same_voxels(kits_tree: Path, tmp_path: Path) -> None:
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"background": 0, "kidney": 1, "tumor": 2})
    image = sitk.ReadImage(str(root / f"imagesTr/{CASES[0]}_0000.nii.gz"))
    told = convert(typed(root, "nnunet"), root, tmp_path / "tree")
    assert told.startswith("2 cases in")
    assert (tmp_path / f"tree/{CASES[0]}/imaging.nii.gz").resolve() == root / f"imagesTr/{CASES[0]}_0000.nii.gz"
    assert sorted(prepare(group(tmp_path / "tree", "kits19"))["cases"]) == sorted(CASES)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    sitk.WriteImage(image, str(pairs / "a_ct.mha"))
    sitk.WriteImage(sitk.ReadImage(str(root / f"labelsTr/{CASES[0]}.nii.gz")), str(pairs / "a_seg.nrrd"))
    convert(typed(pairs, "pairs", images="*_ct.mha", label_maps="*_seg.nrrd"), pairs, tmp_path / "other")
    written = nibabel.load(tmp_path / "other/a/imaging.nii.gz")
    expected = nibabel.load(root / f"imagesTr/{CASES[0]}_0000.nii.gz")
    assert np.array_equal(nibabel.as_closest_canonical(written).get_fdata(), nibabel.as_closest_canonical(expected).get_fdata())
    labels = read_labels(tmp_path / "other/a/segmentation.nii.gz", allowed=range(3)).array
    assert np.array_equal(labels, read_labels(root / f"labelsTr/{CASES[0]}.nii.gz", allowed=range(3)).array)
    with pytest.raises(KitsError, match="give a folder of its own"):
        convert(typed(root, "nnunet"), root, root / "tree")
    convert(typed(root, "nnunet"), root, tmp_path / "tree")  # the same again
    with pytest.raises(KitsError, match=f"tree: holds {CASES[1]}, which is no case of this data set"):
        convert(typed(pairs, "pairs", images="*_ct.mha", label_maps="*_seg.nrrd"), pairs, tmp_path / "tree")


def test_no_case_of_another_data_set_is_replaced(kits_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "mine"
    shutil.copytree(kits_tree, tree)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    with pytest.raises(KitsError, match=r"^output=.*mine: holds .* already, which is not converted by this command"):
        convert(typed(kits_tree, "kits19"), kits_tree, tree)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_a_case_of_two_grids_stops_no_other(kits_tree: Path, tmp_path: Path) -> None:
    root = nnunet_tree(kits_tree, tmp_path / "raw", {"background": 0, "kidney": 1, "tumor": 2})
    path = root / f"labelsTr/{CASES[0]}.nii.gz"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(image[:-1], str(path))
    with pytest.raises(KitsError, match=f"^1 of 2 cases could not be converted .*, the first: {CASES[0]}: .*the two are not one"):
        convert(typed(root, "nnunet"), root, tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree").glob("*/")] == [CASES[1]]
    told = convert(typed(root, "nnunet", skip_invalid=True), root, tmp_path / "tree")
    assert told.startswith(f"1 cases in {tmp_path / 'tree'}\nleft out: {CASES[0]}: ")


def test_steps_are_told_what_label_ids_mean(tmp_path: Path) -> None:
    given = ["stage=coarse", f"data.root={tmp_path}", "data.labels={kidney:[1,2],tumor:3}"]
    training = checked("train", given, prepared=False)
    for keys, command, places in (
        (TRUTH, "evaluate", ["prediction=x", "truth=x", "output=x"]),
        (PREPARED, "prepare", ["split=paper"]),
    ):
        step = configured(command, command, (*places, *assigned(data_of(training, keys))))
        assert step.data.labels.ids == {"kidney": [1, 2], "tumor": [3]}
    steps = StepBuilder(checked("pipeline", ["study=paper", f"output={tmp_path}", f"data.root={tmp_path}"]), [])
    with pytest.raises(KitsError, match=r"data\.layout=bids: .*kits\.convert data=bids root="):
        steps.preparing(checked("train", ["stage=coarse", "data=bids", f"data.root={tmp_path}"], prepared=False))
