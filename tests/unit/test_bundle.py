"""A MONAI Bundle of two checkpoints: MONAI's own runner gives the very labels of kits.predict."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kits
from kits.config.composing import checked
from kits.core.errors import KitsError
from tests.conftest import kidney_pair, write_case
from tests.predicting import run, write_checkpoints

# `python -m monai.bundle run` is this function behind the library fire, which only makes keywords of --words.
RUNNER = "import sys, json; from monai.bundle import run; run(**json.loads(sys.argv[1]))"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def bundle(checkpoints: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, in a folder whose name Hydra would not take without quotes."""
    from kits import export

    folder = tmp_path_factory.mktemp("a bundle, (1)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kits.export", *checkpoints, f"output={folder}", "format=bundle"])
        export.main()
    return folder


@pytest.mark.parametrize("keys", [[], ["precision=32", "save=[labels,probabilities]"]], ids=["plain", "keys"])
def test_monais_runner_gives_the_labels_of_the_checkpoints(
    checkpoints: list[str], bundle: Path, tmp_path: Path, keys: list[str]
) -> None:
    for number in range(2):
        scan = write_case(tmp_path / "tree", f"case_{number:05d}", *kidney_pair(number)) / "imaging.nii.gz"
        (tmp_path / "scans").mkdir(exist_ok=True)
        (tmp_path / "scans" / f"case_{number:05d}.nii.gz").symlink_to(scan)
    run(*checkpoints, f"input={tmp_path / 'scans'}", f"output={tmp_path / 'ours'}", *keys)
    asked = {"config_file": "configs/inference.json", "device": "cpu", "keys": keys}
    asked |= {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "theirs")}
    done = subprocess.run([sys.executable, "-c", RUNNER, json.dumps(asked)], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = sorted(str(path.relative_to(tmp_path / "ours")) for path in (tmp_path / "ours").rglob("*.nii.gz"))
    assert len(names) == (6 if keys else 2)
    for name in names:
        assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()
    assert kits.read(tmp_path / "ours" / "case_00000.nii.gz").array.any()


def test_a_program_finds_the_parts_that_monai_asks_for(checkpoints: list[str], bundle: Path, tmp_path: Path) -> None:
    from monai.bundle import ConfigWorkflow

    scan = write_case(tmp_path, "case_00000", *kidney_pair(0)) / "imaging.nii.gz"
    configs = bundle / "configs"
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "one.nii.gz").symlink_to(scan)
    workflow = ConfigWorkflow(
        str(configs / "inference.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "scans"),
        device="cpu",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    (volume,) = workflow.dataset
    labels = workflow.inferer(volume, workflow.network_def).labels
    coarse, fine = (text.partition("=")[2] for text in checkpoints)
    np.testing.assert_array_equal(labels, kits.load(coarse, fine, device="cpu").segment(kits.read(scan)).labels)
    assert labels.any()


def test_it_says_what_it_needs_and_nothing_of_the_machine(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["required_packages_version"]["kits"] == kits.__version__
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "0 background, 1 kidney, 2 tumor"}
    files = sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())
    assert files == [
        "configs/inference.json",
        "configs/metadata.json",
        "models/coarse.safetensors",
        "models/fine.safetensors",
    ]
    for file in files:
        assert str(Path(kits.__file__).parents[1]).encode() not in (bundle / file).read_bytes()


def test_one_stage_alone_is_one_line(checkpoints: list[str], tmp_path: Path) -> None:
    with pytest.raises(KitsError, match=r"^format=bundle: .* with both stages; give coarse=CKPT and fine=CKPT$"):
        checked("export", [checkpoints[0], f"output={tmp_path / 'out'}", "format=bundle"])
