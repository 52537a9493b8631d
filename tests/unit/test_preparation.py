"""From a KiTS tree to a cache: what is stored, what is refused, what is never used again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from kits.config.composing import compose
from kits.config.schema import parse
from kits.config.schema.dataset import Data
from kits.core.errors import KitsError
from kits.data.cache import case_key, file_digests
from kits.data.index import Case, case_ids
from kits.data.layouts import find_data_set
from tests.conftest import data_of, kidney_pair, prepare, write_case


def data_config(root: Path, cache: Path, **changes: object) -> dict:
    """The real group `data`, scaled to the small tree."""
    data = compose("prepare", [f"data.root={root}", f"data.cache={cache}"])["data"]
    data["coarse_size"], data["workers"], data["roi_rule"]["min_voxels"] = 32, 1, 100
    return {**data, **changes}


def coarse_config(data: dict) -> dict:
    """A training of the coarse stage on this group `data`."""
    small = ["stage=coarse", "data.coarse_size=32", "sampling.patch=[8,32,32]", "model.width=4", "model.depth=2"]
    return {**compose("train", small), "data": data}


def typed(root: Path, cache: Path, **changes: object) -> Data:
    """As `data_config`, typed."""
    return parse(Data, data_config(root, cache, **changes))


@pytest.fixture(scope="module")
def cache(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    prepare(data_config(kits_tree, folder))
    return folder


def arrays(cache: Path, case: str) -> dict[str, np.ndarray]:
    folder = cache / json.loads((cache / "index.json").read_text(encoding="utf-8"))["cases"][case]["folder"]
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def test_the_cache_holds_the_case_in_slice_row_column_order(cache: Path) -> None:
    hu, labels = kidney_pair(2)
    stored = arrays(cache, "case_00002")
    np.testing.assert_array_equal(stored["image"], hu)
    np.testing.assert_array_equal(stored["label"], labels)
    assert stored["image"].dtype == np.int16
    assert stored["image"].flags.c_contiguous
    assert stored["coarse_image"].shape == stored["coarse_label"].shape == (20, 32, 32)


def test_tumor_points_are_tumor(cache: Path) -> None:
    stored = arrays(cache, "case_00000")
    assert len(stored["tumor_points"]) > 50
    assert (stored["label"][tuple(stored["tumor_points"].T)] == 2).all()


def test_the_boxes_hold_both_kidneys(cache: Path) -> None:
    record = json.loads((cache / "index.json").read_text(encoding="utf-8"))["cases"]["case_00001"]
    assert len(record["boxes"]) == 2
    assert record["statistics"]["kidney_in_rois"] == 1.0
    assert record["statistics"]["tumor_in_rois"] == 1.0
    tumor = (kidney_pair(1)[1] == 2).sum() * 4.0 * 1.5 * 1.5 / 1000
    assert record["statistics"]["tumor_ml"] == pytest.approx(tumor)


def test_preparing_again_reuses_what_is_there(kits_tree: Path, cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.glob("cases/*/image.npy")}
    prepare(data_config(kits_tree, cache))
    assert before == {path: path.stat().st_mtime_ns for path in cache.glob("cases/*/image.npy")}
    assert len(before) == 4


def test_a_changed_file_or_setting_has_another_key(kits_tree: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kits_tree / "case_00000", tmp_path / "case_00000")
    case = Case("case_00000", folder / "imaging.nii.gz", folder / "segmentation.nii.gz")
    key = case_key(file_digests(case), {"coarse_size": 32})
    assert key != case_key(file_digests(case), {"coarse_size": 64})
    hu, labels = kidney_pair(9)
    write_case(tmp_path, "case_00000", hu, labels)
    assert key != case_key(file_digests(case), {"coarse_size": 32})


def damage(tree: Path, kind: str) -> None:
    folder = tree / "case_00001"
    hu, labels = kidney_pair(1)
    if kind == "missing label":
        (folder / "segmentation.nii.gz").unlink()
    elif kind == "truncated image":
        content = (folder / "imaging.nii.gz").read_bytes()
        (folder / "imaging.nii.gz").write_bytes(content[: len(content) // 2])
    elif kind == "other size":
        write_case(tree, "other", hu[:-2], labels[:-2])
        shutil.move(tree / "other" / "segmentation.nii.gz", folder / "segmentation.nii.gz")
        shutil.rmtree(tree / "other")
    elif kind == "other spacing":
        write_case(tree, "other", hu, labels, spacing=(5.0, 1.5, 1.5))
        shutil.move(tree / "other" / "segmentation.nii.gz", folder / "segmentation.nii.gz")
        shutil.rmtree(tree / "other")
    elif kind == "unknown label":
        labels[0, 0, 0] = 7
        write_case(tree, "case_00001", hu, labels)
    elif kind == "windowed picture":
        write_case(tree, "case_00001", np.clip(hu + 100, 0, 255).astype(np.int16), labels)
    elif kind == "no kidney":
        write_case(tree, "case_00001", hu, np.zeros_like(labels))
    elif kind == "not a number":
        image = sitk.Cast(sitk.ReadImage(str(folder / "imaging.nii.gz")), sitk.sitkFloat32)
        image[3, 3, 3] = float("nan")
        sitk.WriteImage(image, str(folder / "imaging.nii.gz"))


@pytest.mark.parametrize(
    "kind",
    [
        "missing label",
        "truncated image",
        "other size",
        "other spacing",
        "unknown label",
        "windowed picture",
        "no kidney",
        "not a number",
    ],
)
def test_a_damaged_case_is_named_and_stops_prepare_unless_it_may_be_skipped(kits_tree: Path, tmp_path: Path, kind: str) -> None:
    tree = Path(shutil.copytree(kits_tree, tmp_path / "tree"))
    damage(tree, kind)
    with pytest.raises(KitsError, match="case_00001") as caught:
        prepare(data_config(tree, tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert "skip_invalid" in str(caught.value)
    assert not (tmp_path / "cache" / "index.json").exists()
    index = prepare(data_config(tree, tmp_path / "cache", skip_invalid=True))
    assert sorted(index["cases"]) == ["case_00000", "case_00002", "case_00003"]
    assert not list((tmp_path / "cache" / "cases").glob(".*")), "a half-written case was left"


def test_a_root_without_cases_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="no case in it; the layout is case_XXXXX"):
        find_data_set(typed(tmp_path, tmp_path), tmp_path)


def test_excluded_cases_are_left_out(kits_tree: Path) -> None:
    found = find_data_set(typed(kits_tree, kits_tree, exclude=["case_00001"]), kits_tree)
    assert list(found.cases) == ["case_00000", "case_00002", "case_00003"]


def test_a_test_case_is_one_only_where_it_has_no_labels(kits_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(kits_tree, tmp_path / "tree")
    (tmp_path / "tree/case_00003/segmentation.nii.gz").unlink()
    found = find_data_set(typed(tmp_path, tmp_path, unlabeled_from=2), tmp_path / "tree")
    assert list(found.cases) == ["case_00000", "case_00001", "case_00002"]
    assert compose("prepare", [])["data"]["unlabeled_from"] == 210
    assert compose("prepare", ["data=kits23"])["data"]["unlabeled_from"] is None


def test_training_refuses_a_cache_of_other_settings(kits_tree: Path, cache: Path, tmp_path: Path) -> None:
    config = coarse_config(data_config(kits_tree, cache))
    assert sum(len(cases) for cases in data_of(config).cases.values()) == 4
    config["data"]["roi_rule"]["count"] = 1
    with pytest.raises(KitsError, match="prepared with"):
        data_of(config)
    config["data"]["cache"] = str(tmp_path)
    with pytest.raises(KitsError, match=r"kits\.prepare"):
        data_of(config)


@pytest.mark.parametrize(
    ("exclude", "told"),
    [(["case_0015"], r"data\.exclude: case_0015 .*did you mean case_000"), ([15], r"exclude=\[15\]"), ("case_00001", "give")],
)
def test_an_exclusion_that_is_no_case_id_is_refused(kits_tree: Path, exclude: object, told: str) -> None:
    with pytest.raises(KitsError, match=told):
        find_data_set(typed(kits_tree, kits_tree, exclude=exclude), kits_tree)


@pytest.mark.parametrize(
    ("given", "ids"),
    [(None, None), ("case_00003", ["case_00003"]), (3, ["case_00003"]), ([0, "160"], ["case_00000", "case_00160"])],
)
def test_cases_are_named_by_id_or_number(given: object, ids: object) -> None:
    assert case_ids(given) == ids


def test_training_refuses_a_cache_that_is_not_whole_or_of_another_version(kits_tree: Path, tmp_path: Path) -> None:
    index = prepare(data_config(kits_tree, tmp_path))
    config = coarse_config(data_config(kits_tree, tmp_path))
    (tmp_path / "index.json").write_text(json.dumps({**index, "format": 0}))
    with pytest.raises(KitsError, match="another version"):
        data_of(config)
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / index["cases"]["case_00002"]["folder"] / "image.npy").write_bytes(b"")
    with pytest.raises(KitsError, match="case_00002 is not whole"):
        data_of(config)


def test_one_image_under_two_ids_is_refused(kits_tree: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(kits_tree, tmp_path / "tree")
    shutil.copytree(tree / "case_00001", tree / "case_00007")
    with pytest.raises(KitsError, match="case_00007: its image is that of case_00001"):
        prepare(data_config(tree, tmp_path / "cache"))
