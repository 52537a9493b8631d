"""Whatever is wrong with one scan is one line that names the file and what to do, and the others are segmented all the same."""

import gzip
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from kits.core.errors import KitsError
from tests.conftest import kidney_pair, write_case
from tests.dicoms import write_series
from tests.predicting import run, write_checkpoints

HU = kidney_pair(0)[0]
AFFINE = np.diag((1.5, 1.5, 4.0, 1.0))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def nifti(path: Path, array: np.ndarray = HU, affine: np.ndarray = AFFINE) -> Path:
    """A NIfTI file by another library; the array is (z, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.T, affine), path)
    return path


def with_voxel(value: float) -> np.ndarray:
    hu = HU.astype(np.float32)
    hu[3, 4, 5] = value
    return hu


def damage(folder: Path) -> dict[str, str]:
    """Write a file for every way in which a scan can be wrong; words of the complaint by the scan's name."""
    whole = nifti(folder / "whole.nii.gz").read_bytes()
    plain = gzip.decompress(whole)
    (folder / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "short.nii").write_bytes(plain[:-100])
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "text.nii.gz").write_text("these are not the voxels")
    (folder / "packed_text.nii.gz").write_bytes(gzip.compress(b"these are not the voxels"))
    nifti(folder / "plane.nii.gz", HU[0])
    nifti(folder / "four.nii.gz", np.stack([HU, HU]))
    nifti(folder / "slice.nii.gz", HU[:1])
    nifti(folder / "nan.nii.gz", with_voxel(np.nan))
    nifti(folder / "infinite.nii.gz", with_voxel(np.inf))
    nifti(folder / "offset.nii.gz", HU + 1024)
    nifti(folder / "picture.nii.gz", ((HU.clip(-160, 240) + 160) / 400 * 255).astype(np.uint8))
    nifti(folder / "labels.nii.gz", kidney_pair(0)[1])
    nifti(folder / "black.nii.gz", np.full_like(HU, -1000))
    sheared = nib.Nifti1Image(HU.T, np.array([[1.5, 0.5, 0, 0], [0, 1.5, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]]))
    sheared.set_qform(None, 0)
    nib.save(sheared, folder / "sheared.nii.gz")
    nifti(folder / "huge.nii.gz", affine=np.diag((1.5, 1.5, 400.0, 1.0)))
    no_spacing = bytearray(plain)
    struct.pack_into("<f", no_spacing, 76 + 4 * 3, 0.0)
    (folder / "zero.nii.gz").write_bytes(gzip.compress(bytes(no_spacing)))
    sitk.WriteImage(sitk.GetImageFromArray(HU), folder / "cut.nrrd")
    (folder / "cut.nrrd").write_bytes((folder / "cut.nrrd").read_bytes()[:-1000])
    sitk.WriteImage(sitk.GetImageFromArray(HU), folder / "lonely.mhd")
    (folder / "lonely.raw").unlink()
    for name, old, new in (
        ("no_spacing.mha", b"ElementSpacing = 1.5 1.5 4", b"ElementSpacing = 1.5 1.5 0"),
        ("mirrored.mha", b"ElementSpacing = 1.5 1.5 4", b"ElementSpacing = 1.5 1.5 -4"),
        ("askew.mha", b"TransformMatrix = 1 0 0 0 1 0", b"TransformMatrix = 1 0 0 0.5 1 0"),
        ("lost.mha", b"TransformMatrix = 1 0 0", b"TransformMatrix = nan 0 0"),
        ("bent.nrrd", b"(0,1.5,0)", b"(0.7,1.5,0)"),
        ("flat.nrrd", b"(0,0,4)", b"(0,0,0)"),
    ):
        image = sitk.GetImageFromArray(HU)
        image.SetSpacing((1.5, 1.5, 4.0))
        sitk.WriteImage(image, folder / name)
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*HU.shape, 3), np.uint8), isVector=True), folder / "colors.nii.gz")
    (folder / "dangling.nii.gz").symlink_to(folder / "nowhere.nii.gz")
    write_series(folder / "gap", np.delete(HU, 7, axis=0), positions=[(0, 0, 4.0 * k) for k in range(20) if k != 7])
    write_series(folder / "tilt", HU, positions=[(0, 1.2 * k, 4.0 * k) for k in range(20)])
    return {
        "truncated": "damaged or incomplete",
        "short": "incomplete",
        "empty": "incomplete, 0 bytes",
        "text": "not an image",
        "packed_text": "not an image",
        "plane": "is 2D",
        "four": "is 4D",
        "slice": "only 1 x",
        "nan": "NaN or infinite",
        "infinite": "NaN or infinite",
        "offset": "offset of -1024 is missing",
        "picture": "no air|windowed",
        "labels": "a label map",
        "black": "every voxel is -1000",
        "sheared": "not at right angles",
        "huge": "spacing .* is not that of a CT",
        "zero": r"spacing of \(1.5, 1.5, 0\)",
        "cut": "incomplete",
        "lonely": "incomplete",
        "no_spacing": r"spacing of \(1.5, 1.5, 0\)",
        "mirrored": r"spacing of \(1.5, 1.5, -4\)",
        "askew": "not at right angles",
        "lost": "not of 9 numbers",
        "bent": "not at right angles",
        "flat": r"spacing of \(1.5, 1.5, 0\)",
        "colors": r"3 channel\(s\)",
        "gap": "missing, doubled or uneven",
        "tilt": "gantry tilt",
    }


def test_each_wrong_scan_is_one_line_and_the_sound_one_is_segmented(checkpoints: list[str], tmp_path: Path) -> None:
    import re

    expected = damage(tmp_path / "in")
    with pytest.raises(KitsError, match=rf"^{len(expected)} of {len(expected) + 1} inputs could not be segmented, the first: "):
        run(*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert list(report["cases"]) == ["whole"]
    assert [Path(item["path"]).name for item in report["skipped"]] == ["dangling.nii.gz"]
    assert sorted(report["failed"]) == sorted(expected)
    for name, words in expected.items():
        told = report["failed"][name]["error"]
        assert re.search(words, told), f"{name}: {told}"
        assert "\n" not in told
        assert told.startswith(str(tmp_path / "in" / name))
        assert "; " in told, f"{name}: says what is wrong and not what to do: {told}"
        assert "unexpected" not in told
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["whole.nii.gz"]


def test_implausible_scans_are_segmented_on_demand_with_a_warning(checkpoints: list[str], tmp_path: Path) -> None:
    nifti(tmp_path / "in" / "offset.nii.gz", HU + 1024)
    sitk.WriteImage(sitk.GetImageFromArray(HU), unplaced := tmp_path / "in" / "unplaced.mha")
    unplaced.write_bytes(unplaced.read_bytes().replace(b"Offset = 0 0 0\n", b""))
    run(*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "allow_implausible=true")
    cases = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["cases"]
    assert "offset of -1024 is missing" in cases["offset"]["warnings"][0]
    assert cases["unplaced"]["warnings"][0] == "its header gives no origin, which is taken as (0, 0, 0) mm"


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    """Root may read everything, so a process of nobody tries; from inside the folder, as those above it may be closed to it."""
    nifti(tmp_path / "scan.nii.gz").chmod(0)
    tmp_path.chmod(0o755)
    code = f"""
import os, sys
from pathlib import Path
from kits.core.errors import KitsError
from kits.data.scans import find_inputs
from kits.io import read_volume
sys.path.insert(0, os.getcwd())
os.chdir({str(tmp_path)!r})
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    find_inputs(Path("scan.nii.gz")).scans["scan"].read()
except KitsError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout == "scan.nii.gz: cannot be opened (Permission denied); check who may read it\n", said.stderr


# A limit on the size of files stands for a full disk: the system refuses the same writes with an error of the same kind.
FULL = """
import resource, runpy, sys
import kits.inference.segmenter  # some releases of torch write a file of their own when they are imported
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.dont_write_bytecode = True
runpy.run_module("kits.predict", run_name="__main__", alter_sys=True)
"""


def test_a_full_disk_is_an_error_and_leaves_nothing(checkpoints: list[str], tmp_path: Path) -> None:
    nifti(tmp_path / "in" / "scan.nii.gz")
    call = [sys.executable, "-c", FULL, *checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "device=cpu"]
    said = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert said.returncode == 1
    last = said.stderr.splitlines()[-1]
    assert "kits.predict: 1 of 1 inputs could not be segmented, the first: " in last
    assert (
        f"{tmp_path / 'out' / 'scan.nii.gz'}: cannot be written ([Errno 27] File too large); check the folder and the free space"
        in last
    )
    assert "Traceback" not in said.stderr + said.stdout
    assert list(filter(Path.is_file, tmp_path.rglob("*"))) == [tmp_path / "in" / "scan.nii.gz"]


def test_checkpoints_that_do_not_belong_are_one_line_and_nothing_in_them_runs(checkpoints: list[str], tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(witness),)

    coarse, fine = (Path(text.partition("=")[2]) for text in checkpoints)
    content = torch.load(coarse, weights_only=True)

    def changed(file: str, **model: object) -> Path:
        config = {**content["hyper_parameters"], "model": {**content["hyper_parameters"]["model"], **model}}
        torch.save({**content, "hyper_parameters": config}, tmp_path / file)
        return tmp_path / file

    (tmp_path / "cut.ckpt").write_bytes(coarse.read_bytes()[:5000])
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "other.ckpt")
    torch.save({"hyper_parameters": {"kits_format": 1}, "state_dict": Hostile()}, tmp_path / "code.ckpt", pickle_module=pickle)
    (tmp_path / "text.ckpt").write_text("nothing at all")
    torch.save({**content, "hyper_parameters": {"kits_format": [2], "stage": "coarse"}}, tmp_path / "numbered.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    nifti(tmp_path / "scan.nii.gz")
    for path, words in (
        (fine, "are the two swapped"),
        (tmp_path / "absent.ckpt", "no such checkpoint"),
        (tmp_path, r"is a folder; give a checkpoint in it, of a run .*best\.ckpt"),
        (tmp_path / "cut.ckpt", "not a checkpoint"),
        (tmp_path / "other.ckpt", "not a checkpoint of this project"),
        (tmp_path / "code.ckpt", r"opened safely \(it holds \w+\.mkdir, and only tensors and plain values are read\); give one"),
        (tmp_path / "pickle.ckpt", r"opened safely \(it holds \w+\.mkdir"),
        (tmp_path / "text.ckpt", r"opened safely \(no file of torch\.save\); give one"),
        (tmp_path / "numbered.ckpt", "not a checkpoint of this project"),
        (changed("callable.ckpt", name="os.system"), r"model\.name=os\.system"),
        (changed("target.ckpt", _target_="os.mkdir", path=str(witness)), r"model\._target_: no such key"),
    ):
        overrides = [f"coarse={path}", f"fine={fine}", f"input={tmp_path / 'scan.nii.gz'}", f"output={tmp_path / 'out'}"]
        with pytest.raises(KitsError, match=words) as caught:
            run(*overrides)
        assert "\n" not in str(caught.value)
    assert not witness.exists()
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(
    checkpoints: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        write_case(tmp_path / "in", f"case_{number:05d}", *kidney_pair(number))
    out = tmp_path / "out"
    arguments = [*checkpoints, f"input={tmp_path / 'in'}", f"output={out}"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        while not (out / "case_00001.nii.gz").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        waiting = threading.Thread(target=interrupt, daemon=True)
        waiting.start()
        with pytest.raises(SystemExit) as caught:
            run(*arguments)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert caught.value.code == 130
    said = capsys.readouterr().err
    done = sorted(path.name.removesuffix(".nii.gz") for path in out.glob("*.nii.gz"))
    assert f"interrupted; {len(done)} of 8 inputs are finished, and the same command goes on with the others" in said
    assert 2 <= len(done) < 8
    assert sorted(json.loads((out / "report.json").read_text(encoding="utf-8"))["cases"]) == done
    assert not list(out.rglob(".*"))
    first = {name: (out / f"{name}.nii.gz").stat().st_mtime_ns for name in done}
    run(*arguments)
    assert len(list(out.glob("*.nii.gz"))) == 8
    assert {name: (out / f"{name}.nii.gz").stat().st_mtime_ns for name in done} == first
    run(*checkpoints, f"input={tmp_path / 'in'}", f"output={tmp_path / 'clean'}")
    for path in out.glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "clean" / path.name).read_bytes()
