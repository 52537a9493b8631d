"""The networks that come with the package: exported from real trainings, installed, used without naming them, damaged."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import kits
from kits.config.composing import checked
from kits.config.conf_files import conf_dir
from kits.core.errors import KitsError
from kits.data.preparation import prepare
from kits.inference import shipping
from kits.inference.exporting import export_networks
from kits.io import read_labels, shipped
from kits.metrics.overlap import dice
from kits.train import train
from tests.conftest import kidney_pair, training_options, write_case
from tests.predicting import run, write_checkpoint
from tests.unit.test_runs import FINE, TINY

CARD = "# Tiny networks\n\nTrained for a test.\n"


@pytest.fixture(scope="module")
def trained(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each stage, a scan that neither has seen, and a model card."""
    folder = tmp_path_factory.mktemp("trained")
    cache = folder / "cache"
    prepare(training_options([*TINY, f"data.root={kits_tree}", f"data.cache={cache}"]).data)
    for stage, overrides in (("coarse", TINY), ("fine", FINE)):
        train(training_options([*overrides, "trainer.max_epochs=4", f"data.cache={cache}", f"run_dir={folder / stage}"]))
    write_case(folder, "scan", *kidney_pair(7))
    (folder / "card.md").write_text(CARD)
    return folder


def export(trained: Path, output: Path, *overrides: str) -> None:
    given = [f"{stage}={trained / stage / 'best.ckpt'}" for stage in ("coarse", "fine")]
    given += [f"card={trained / 'card.md'}", f"scan={trained / 'scan' / 'imaging.nii.gz'}", f"output={output}", "format=shipped"]
    export_networks(checked("export", [*given, *overrides]))


@pytest.fixture(scope="module")
def files(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "shipped"
    export(trained, folder)
    return folder


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files in the place of the package's own."""
    folder = tmp_path / "shipped"
    shutil.copytree(files, folder)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


def test_an_installation_segments_without_checkpoints_as_with_them(trained: Path, files: Path, tmp_path: Path) -> None:
    """In a process of its own, from a copy of the package as a wheel lays it out."""
    site = tmp_path / "site"
    shutil.copytree(Path(kits.__file__).parent, site / "kits", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    shutil.copytree(conf_dir(), site / "kits" / "_conf")
    scan = trained / "scan" / "imaging.nii.gz"

    def called(command: str, *keys: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", f"kits.{command}", *keys]
        return subprocess.run(call, capture_output=True, text=True, cwd=site, timeout=200)

    with_files = (f"input={scan}", f"output={tmp_path / 'without.nii.gz'}", "device=cpu")
    said = called("predict", *with_files)
    assert (said.returncode, said.stderr) == (1, f"kits.predict: {shipped.NONE_HERE}\n")

    shutil.copytree(files, site / "kits" / "shipped")
    said = called("predict", *with_files)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines().count(shipped.NOTICE) == 1
    pair = [f"{stage}={trained / stage / 'best.ckpt'}" for stage in ("coarse", "fine")]
    run(*pair, f"input={scan}", f"output={tmp_path / 'with.nii.gz'}")
    labels = [read_labels(tmp_path / f"{name}.nii.gz", allowed=range(3)).array for name in ("without", "with")]
    assert (labels[1] > 0).sum() > 1000
    assert dice(labels[0] > 0, labels[1] > 0) > 0.98

    said = called("show_model")
    assert said.returncode == 0, said.stderr
    told = said.stdout
    assert told.startswith("# Tiny networks\n")
    card = json.loads((files / "card.json").read_text())
    assert all(file["sha256"] in told for file in card["files"].values())
    assert all(origin["trained_on"] and origin["checkpoints"][0] in told for origin in card["origins"].values())


def test_python_measurements_and_exports_take_them_too(
    trained: Path, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = trained / "scan" / "imaging.nii.gz"
    labels = kits.load(device="cpu").segment(kits.read(scan)).labels
    assert capsys.readouterr().err == shipped.NOTICE + "\n"
    run(f"input={scan}", f"output={tmp_path / 'labels.nii.gz'}")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz", allowed=range(3)).array, labels)

    from kits.readout.measuring import prediction

    options = checked("measure", [f"input={scan}", f"output={tmp_path}", "coarse=shipped", "fine=shipped"])
    assert (prediction(options).coarse, prediction(options).fine) == ("shipped", "shipped")
    export_networks(checked("export", ["coarse=shipped", "fine=shipped", "format=safetensors", f"output={tmp_path / 'again'}"]))
    run(
        *(f"{stage}={tmp_path / 'again' / stage}.safetensors" for stage in ("coarse", "fine")),
        f"input={scan}",
        f"output={tmp_path / 'again.nii.gz'}",
    )
    np.testing.assert_array_equal(read_labels(tmp_path / "again.nii.gz", allowed=range(3)).array, labels)
    with pytest.raises(KitsError, match=r"^fine: no checkpoint given; add fine=CKPT, or leave all out"):
        run(f"coarse={trained / 'coarse' / 'best.ckpt'}", f"input={scan}", f"output={tmp_path / 'x.nii.gz'}")
    with pytest.raises(KitsError, match=r"^coarse: no checkpoint given"):
        kits.load(fine=trained / "fine" / "best.ckpt")


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def lose(path: Path, chance: random.Random) -> None:
    path.unlink()


def edit(path: Path, chance: random.Random) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content[chance.choice(sorted(content))] = chance.choice([None, -1, "x", [], {}, {"coarse": 1}, True])
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("how", [flip, cut, lose, edit])
@pytest.mark.parametrize("name", ["coarse.safetensors", "fine.safetensors", "card.json"])
def test_damage_is_one_line_that_names_the_file(
    here: Path, files: Path, name: str, how: Callable[[Path, random.Random], None]
) -> None:
    if how is edit and name != "card.json":
        pytest.skip("no JSON")
    pair, chance = {"coarse": None, "fine": None}, random.Random(name)
    sound = shipped.network_files(pair)
    told = []
    for _ in range(20):
        shutil.copy(files / name, here / name)
        how(here / name, chance)
        try:
            assert shipped.network_files(pair) == sound
        except KitsError as error:
            told.append(str(error))
    # Of the card a letter of the date, say, is harmless: the networks are those that were written.
    assert len(told) == 20 or (name == "card.json" and how in (flip, edit) and told)
    assert all("\n" not in one and (name in one or one == shipped.NONE_HERE) for one in told)


def test_only_what_is_whole_small_and_the_checkpoints_own_is_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KitsError, match=r"^scan: no value given; format=shipped takes coarse=CKPT"):
        export(trained, tmp_path, "scan=null")
    with pytest.raises(KitsError, match=r"^format=onnx: of one checkpoint a stage"):
        export(trained, tmp_path, "format=onnx", "coarse=[a,b]")
    with pytest.raises(KitsError, match=r"^card=nothing\.md: cannot be read \(No such file"):
        export(trained, tmp_path, "card=nothing.md")
    best = trained / "coarse" / "best.ckpt"
    with pytest.raises(KitsError, match="of different networks; average only such of one model"):
        export(trained, tmp_path, f"coarse=[{best},{write_checkpoint(tmp_path / 'other.ckpt', 'coarse', 'model.norm=none')}]")
    monkeypatch.setattr(shipping, "LEAST_SAME", 1.1)
    with pytest.raises(KitsError, match=r"labels of .* are not the checkpoints'"):
        export(trained, tmp_path / "other")
    assert not (tmp_path / "other" / "card.json").exists()
    monkeypatch.setattr(shipping, "MOST_BYTES", 10_000)
    with pytest.raises(KitsError, match=r"MB: what comes with kits has at most 0\.01 MB; train narrower networks$"):
        export(trained, tmp_path / "large")
    assert not (tmp_path / "large").exists()


def test_a_checkpoint_that_does_not_name_its_cases_is_shipped_so(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "coarse" / "best.ckpt", weights_only=True)
    del content["hyper_parameters"]["trained_on"]
    torch.save(content, tmp_path / "silent.ckpt")
    export(trained, tmp_path, f"coarse={tmp_path / 'silent.ckpt'}")
    origins = shipped.read_card(tmp_path).origins
    assert origins["coarse"].trained_on is None
    assert origins["fine"].trained_on


def test_several_checkpoints_become_their_mean(trained: Path, tmp_path: Path) -> None:
    from kits.models.checkpoint import load_network

    paths = [trained / "fine" / name for name in ("best.ckpt", "last.ckpt")]
    network, settings = shipping.averaged(paths, "fine")
    one, other = (load_network(path, "fine", "cpu")[0].state_dict() for path in paths)
    for name, tensor in network.state_dict().items():
        expected = (one[name] + other[name]) / 2 if tensor.is_floating_point() else one[name]
        np.testing.assert_allclose(tensor, expected, rtol=1e-6, atol=1e-7)
    assert settings.trained_on
    export(trained, tmp_path, f"fine=[{paths[0]},{paths[0]}]")
    assert len(json.loads((tmp_path / "card.json").read_text())["origins"]["fine"]["checkpoints"]) == 2
