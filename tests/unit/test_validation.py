"""What validation calls out, by name, and what it leaves in peace; KiTS's quirks on tiny volumes."""

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from kits.core.errors import KitsError
from kits.data.validate import check_hu, check_listed, check_order, misplaced_share
from kits.io import read_volume
from kits.volume import plane_grid, to_coarse
from kits.volume.hu import histogram
from tests.conftest import ellipsoid, kidney_pair, prepare, write_case
from tests.unit.test_preparation import data_config

SHAPE = (20, 64, 64)


def table_of(cache: Path) -> list[dict[str, str]]:
    with (cache / "findings.csv").open() as stream:
        return list(csv.DictReader(stream))


def one_case(tmp_path: Path, hu: np.ndarray, labels: np.ndarray, **changes: object) -> dict:
    """Prepare two sound cases beside this one, and return its record."""
    tree = tmp_path / "tree"
    for number in (1, 2):
        write_case(tree, f"case_{number:05d}", *kidney_pair(number))
    write_case(tree, "case_00000", hu, labels)
    return dict(prepare(data_config(tree, tmp_path / "cache", **changes))["cases"]["case_00000"])


def rewrite(folder: Path, name: str, change: Callable[[sitk.Image], sitk.Image]) -> None:
    path = str(folder / name)
    sitk.WriteImage(change(sitk.ReadImage(path)), path)


# --- 200 damaged cases -----------------------------------------------------------------------------------------------

IMAGE, LABEL = "imaging.nii.gz", "segmentation.nii.gz"


def truncated(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([IMAGE, LABEL]))
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(20, len(content) - 9))])
    return path.name


def zero_bytes(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([IMAGE, LABEL]))
    path.write_bytes(b"")
    return "0 bytes"


def flipped_bytes(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([IMAGE, LABEL]))
    content = bytearray(path.read_bytes())
    for place in rng.integers(len(content) // 2, len(content) - 1, 8):
        content[place] ^= 0x5A
    path.write_bytes(bytes(content))
    return path.name


def no_image(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([IMAGE, LABEL]))
    kind = rng.integers(4)
    junk = rng.bytes(5000)
    path.write_bytes([junk, gzip.compress(junk), b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"][kind])
    return path.name


def missing(folder: Path, rng: np.random.Generator) -> str:
    (folder / str(rng.choice([IMAGE, LABEL]))).unlink()
    return "missing"


def folder_for_file(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([IMAGE, LABEL]))
    path.unlink()
    path.mkdir()
    return "is a folder"


def wrong_size(folder: Path, rng: np.random.Generator) -> str:
    cut = int(rng.integers(1, 5))
    rewrite(folder, LABEL, lambda image: image[:-cut])
    return "voxels (z, y, x), not"


def wrong_affine(folder: Path, rng: np.random.Generator) -> str:
    def change(image: sitk.Image) -> sitk.Image:
        image.SetOrigin((5.0, 0.0, float(rng.uniform(1, 9))))
        return image

    rewrite(folder, LABEL, change)
    return "origin"


def not_a_number(folder: Path, rng: np.random.Generator) -> str:
    def change(image: sitk.Image) -> sitk.Image:
        image = sitk.Cast(image, sitk.sitkFloat32)
        image[[int(rng.integers(n)) for n in image.GetSize()]] = float(rng.choice([np.nan, np.inf]))
        return image

    rewrite(folder, IMAGE, change)
    return "NaN"


def wrong_label(folder: Path, rng: np.random.Generator) -> str:
    value = int(rng.integers(3, 200))

    def change(image: sitk.Image) -> sitk.Image:
        image[3, 3, 3] = value
        return image

    rewrite(folder, LABEL, change)
    return f"label values {value}"


def swapped_files(folder: Path, rng: np.random.Generator) -> str:
    (folder / IMAGE).rename(folder / "x")
    (folder / LABEL).rename(folder / IMAGE)
    (folder / "x").rename(folder / LABEL)
    return "a label map"


def no_kidney(folder: Path, rng: np.random.Generator) -> str:
    rewrite(folder, LABEL, lambda image: image * 0)
    return "no kidney"


def shifted_label(folder: Path, rng: np.random.Generator) -> str:
    rewrite(folder, LABEL, lambda image: sitk.Cast(sitk.CyclicShift(image, (0, 26, 0)), sitk.sitkUInt8))
    return "which is no kidney"


def absurd_header(folder: Path, rng: np.random.Generator) -> str:
    path = folder / str(rng.choice([IMAGE, LABEL]))
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()  # dim[1..3] of a NIfTI-1 header
    path.write_bytes(gzip.compress(bytes(content)))
    return path.name


def sheared(folder: Path, rng: np.random.Generator) -> str:
    image = nibabel.load(folder / IMAGE)
    affine = image.affine.copy()
    affine[0, 1] += 0.7
    header = image.header.copy()
    header.set_qform(None, 0)
    header.set_sform(affine, 1)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, header), folder / IMAGE)
    return "right angles"


def voxels(change: Callable[[np.ndarray, np.random.Generator], np.ndarray], words: str) -> Callable[..., str]:
    """A damage to the image's voxels (x, y, z order of the file reversed by numpy)."""

    def damage(folder: Path, rng: np.random.Generator) -> str:
        def rebuilt(image: sitk.Image) -> sitk.Image:
            result = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image), rng))
            result.CopyInformation(image)
            return result

        rewrite(folder, IMAGE, rebuilt)
        return words

    return damage


DAMAGES: dict[str, Callable[[Path, np.random.Generator], str]] = {
    **{
        work.__name__: work
        for work in (
            truncated,
            zero_bytes,
            flipped_bytes,
            no_image,
            missing,
            folder_for_file,
            wrong_size,
            wrong_affine,
            not_a_number,
            wrong_label,
            swapped_files,
            no_kidney,
            shifted_label,
            absurd_header,
            sheared,
        )
    },
    "windowed": voxels(lambda hu, rng: hu.clip(-100, int(rng.integers(100, 150))), "windowed"),
    "unscaled": voxels(lambda hu, rng: hu + np.int16(1024), "unscaled"),
    "scaled to 0..1": voxels(lambda hu, rng: ((hu + 1100) / 2000).astype(np.float32), "0..1"),
    "constant": voxels(lambda hu, rng: np.full_like(hu, -1000), "every voxel"),
    "shuffled": voxels(lambda hu, rng: np.ascontiguousarray(hu[:, :, rng.permutation(hu.shape[2])]), "not in order"),
}


@pytest.mark.parametrize("count", [len(DAMAGES), pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_cases_are_named_with_their_reason_and_none_reaches_training(tmp_path: Path, count: int) -> None:
    tree, words, kinds = tmp_path / "tree", {}, list(DAMAGES)
    sound = [kidney_pair(seed) for seed in range(3)]
    masters = [write_case(tmp_path / "master", f"case_{seed:05d}", *pair) for seed, pair in enumerate(sound)]
    for number in range(count):
        case, rng = f"case_{number:05d}", np.random.default_rng([3, number])
        shutil.copytree(masters[number % 3], tree / case)
        words[case] = DAMAGES[kinds[number % len(kinds)]](tree / case, rng)
    for number in (200, 201, 202):
        shutil.copytree(masters[number % 3], tree / f"case_{number:05d}")
    index = prepare(data_config(tree, tmp_path / "cache", skip_invalid=True))
    assert sorted(index["cases"]) == ["case_00200", "case_00201", "case_00202"]
    split = (tmp_path / "cache" / "splits.json").read_text(encoding="utf-8")
    reasons: dict[str, str] = {}
    for row in table_of(tmp_path / "cache"):
        assert row["what to do"], row
        if row["severity"] == "error":
            reasons[row["case"]] = reasons.get(row["case"], "") + row["finding"]
    assert {case: word for case, word in words.items() if word not in reasons.get(case, "")} == {}
    assert not any(case in split for case in words)
    assert not [reason for reason in reasons.values() if "Error:" in reason], "an exception that nobody foresaw"
    assert not any(name.name.startswith(".") for name in (tmp_path / "cache" / "cases").iterdir())


def test_an_unforeseen_exception_names_its_case_and_the_others_go_on(
    kits_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kits.data import cache as module

    def broken(path: Path) -> object:
        if "case_00002" in str(path):
            raise MemoryError("of all things")
        return read_volume(path)

    monkeypatch.setattr(module, "read_volume", broken)
    with pytest.raises(KitsError, match=r"case_00002.*MemoryError: of all things"):
        prepare(data_config(kits_tree, tmp_path))
    assert len(list((tmp_path / "cases").iterdir())) == 3


def test_all_findings_of_a_case_are_listed_not_only_the_first(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    labels[0, 0, 0] = 9
    with pytest.raises(KitsError, match="skip_invalid"):
        one_case(tmp_path, hu + 1024, labels)
    found = [row["finding"] for row in table_of(tmp_path / "cache") if row["case"] == "case_00000"]
    assert any("label values 9" in text for text in found)
    assert any("unscaled" in text for text in found)


# --- plausibility ----------------------------------------------------------------------------------------------------


def hu_findings(hu: np.ndarray) -> list[tuple[str, str]]:
    return [(row.severity, row.finding) for row in check_hu("case", "image", histogram(hu.astype(np.int16)))]


def test_a_sound_scan_has_no_findings() -> None:
    hu, _ = kidney_pair(0)
    assert hu_findings(hu) == []
    padded = hu.copy()
    padded[:, :8] = -3024
    assert hu_findings(padded) == []


def test_a_scan_that_is_clipped_far_from_the_window_only_warns() -> None:
    hu, _ = kidney_pair(0)
    (severity, text) = hu_findings(hu.clip(-1000, 170))[0]
    assert severity == "warning"
    assert "-1000 .. 170" in text


def test_slices_in_order_are_left_in_peace_and_shuffled_ones_are_not() -> None:
    hu, _ = kidney_pair(0)
    coarse = to_coarse(hu, plane_grid(hu.shape, 32), -1024)
    assert check_order("case", "image", coarse) == []
    assert check_order("case", "image", coarse[::-1]) == []
    assert check_order("case", "image", np.repeat(hu[:1], 12, axis=0)) == []
    noise = np.random.default_rng(0).normal(0, 20, (60, 64, 64)).astype(np.int16)
    assert check_order("case", "image", noise) == []
    assert check_order("case", "image", coarse[np.random.default_rng(1).permutation(20)])


@pytest.mark.parametrize("name", ["crlm_1004.nii.gz", "crlm_1006_dicom", "totalsegmentator_example.nii.gz"])
def test_real_ct_has_no_findings_until_it_is_spoiled(shared_data: Path, name: str) -> None:
    array = np.ascontiguousarray(read_volume(shared_data / "ct" / name).array)
    coarse = to_coarse(array, plane_grid(array.shape, 64), -1024)
    assert hu_findings(array) == []
    assert misplaced_share(coarse) < 0.05
    for seed in range(3):
        assert check_order("case", "image", coarse[np.random.default_rng(seed).permutation(len(coarse))])
    for spoiled, word in ((array.clip(-100, 300), "windowed"), (array.clip(-1024, 3071) + 1024, "unscaled")):
        ((severity, text),) = hu_findings(spoiled)
        assert severity == "error"
        assert word in text


def test_spacing_is_compared_with_the_record() -> None:
    def severities(spacing: tuple[float, float, float], record: dict | None) -> list[str]:
        return [row.severity for row in check_listed("case", spacing, record)]

    voxel = {"voxel_spacing": {"x_spacing": 0.8, "y_spacing": 0.8, "z_spacing": 3.0}}
    assert severities((3.0, 0.8, 0.8), voxel) == []
    assert severities((3.0, 0.8, 0.8), None) == []
    assert severities((3.0, 0.82, 0.8), voxel) == ["warning"]
    assert severities((1.0, 0.8, 0.8), voxel) == ["error"]
    captured = {"captured_slice_thickness": 5.0, "captured_pixel_width": 0.8}
    assert severities((2.5, 0.8, 0.8), captured) == ["warning"], "slices may overlap"
    assert severities((5.0, 1.0, 1.0), captured) == ["error", "error"]


def test_warnings_do_not_stop_prepare_and_are_not_lost_when_the_case_is_cached(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    (tmp_path / "tree").mkdir()
    record = {"case_id": "case_00001", "voxel_spacing": {"x_spacing": 1.45, "y_spacing": 1.5, "z_spacing": 4.0}}
    (tmp_path / "tree" / "kits.json").write_text(json.dumps([record]))
    one_case(tmp_path, hu.clip(-1000, 170), labels)
    first = table_of(tmp_path / "cache")
    assert {(row["case"], row["severity"]) for row in first} == {("case_00000", "warning"), ("case_00001", "warning")}
    one_case(tmp_path, hu.clip(-1000, 170), labels)
    assert table_of(tmp_path / "cache") == first


# --- quirks of KiTS19 ------------------------------------------------------------------------------------------------


def test_a_wide_case_is_not_squashed(tmp_path: Path) -> None:
    hu, labels = (np.concatenate([part, part[:, :, -36:]], axis=2) for part in kidney_pair(0))
    labels[:, :, 64:] = 0
    record = one_case(tmp_path, hu, labels)  # 64 x 100, as 512 x 796
    coarse = np.load(tmp_path / "cache" / record["folder"] / "coarse_label.npy") > 0
    assert coarse.sum() == pytest.approx((labels > 0).sum() * 0.32**2, rel=0.2), "one factor, 32 / 100, for rows and columns"
    image = np.load(tmp_path / "cache" / record["folder"] / "coarse_image.npy")
    assert (image[:, :6] == -1024).all(), "64 rows become 20, in the middle of 32"
    assert (image[:, 26:] == -1024).all()
    assert (image[:, 6:26].reshape(20, -1) > -1024).all()


def test_a_uint16_mask_with_other_header_codes_is_the_same_mask(tmp_path: Path) -> None:
    record = one_case(tmp_path, *kidney_pair(0))
    path = tmp_path / "tree" / "case_00000" / LABEL
    image = nibabel.load(path)
    other = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.uint16), image.affine)
    other.set_sform(image.affine, 2)
    other.set_qform(image.affine, 0)
    other.header.set_xyzt_units("unknown", "unknown")
    nibabel.save(other, path)
    again = dict(prepare(data_config(tmp_path / "tree", tmp_path / "cache"))["cases"]["case_00000"])
    assert again["key"] != record["key"]
    assert {**again, "key": 0, "folder": 0} == {**record, "key": 0, "folder": 0}
    np.testing.assert_array_equal(*(np.load(tmp_path / "cache" / one["folder"] / "label.npy") for one in (record, again)))


def test_one_kidney_is_one_roi_and_a_tumor_may_have_several_pieces(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    hu[:, :, :32], labels[:, :, :32] = np.where(labels[:, :, :32] > 0, -50, hu[:, :, :32]), 0
    extra = ellipsoid(SHAPE, (4, 32, 45), (1.5, 2, 2)) & (labels == 1)
    labels[extra], hu[extra] = 2, 60
    record = one_case(tmp_path, hu, labels)
    assert len(record["boxes"]) == record["statistics"]["rois"] == record["statistics"]["kidneys"] == 1
    assert record["statistics"]["tumor_pieces"] == 2
    assert record["statistics"]["tumor_in_rois"] == 1.0
    overall = json.loads((tmp_path / "cache" / "fingerprint.json").read_text(encoding="utf-8"))["overall"]
    assert overall["cases_by_rois"] == {"1": 1, "2": 2}
    assert overall["cases_by_tumor_pieces"] == {"1": 2, "2": 1}


def test_a_label_beyond_tumor_is_kidney_on_the_coarse_grid_too(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    whole = labels > 0
    labels[labels == 1] = 3
    labels[0:10][whole[0:10]] = 1
    record = one_case(tmp_path, hu, labels, classes=["background", "kidney", "tumor", "cyst"])
    coarse = np.load(tmp_path / "cache" / record["folder"] / "coarse_label.npy")
    assert set(np.unique(coarse)) == {0, 1, 2, 3}
    reference = one_case(tmp_path / "reference", hu, whole.astype(np.uint8))
    np.testing.assert_array_equal(
        coarse > 0, np.load(tmp_path / "reference" / "cache" / reference["folder"] / "coarse_label.npy") > 0
    )
    assert record["boxes"] == reference["boxes"]
    assert record["statistics"]["cyst_ml"] > 0
