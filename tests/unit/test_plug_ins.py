"""Parts of installed packages: trained with, built again from a checkpoint, and refused in one line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kits.config.composing import checked, compose
from kits.config.plug_ins import plug_ins
from kits.config.usage import explain_group
from kits.core.errors import KitsError
from kits.models import build_network
from kits.models.checkpoint import load_network
from kits.train import train
from kits.training.losses import build_loss
from tests.conftest import prepare
from tests.unit.test_runs import FINE, TINY

EXAMPLE = Path(__file__).parents[2] / "experiments" / "plugin"


def install(site: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """Write what pip leaves of a package: its metadata with entry points."""
    folder = site / f"{name}-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n", encoding="utf-8")
    lines = [f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in own.items()) for group, own in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of experiments/, installed by pip as a user does it, but beside the environment and without the network."""
    folder = tmp_path_factory.mktemp("installed")
    sources = shutil.copytree(EXAMPLE, folder / "plugin")  # setuptools builds beside them
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder / "site"), str(sources)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder / "site"


@pytest.fixture
def site(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, the example among them."""
    monkeypatch.syspath_prepend(str(installed))
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    plug_ins.cache_clear()
    yield folder
    plug_ins.cache_clear()


def test_the_example_is_installed_trains_ten_steps_and_predicts_in_another_process(
    site: Path, installed: Path, kits_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [f"data.root={kits_tree}", f"data.cache={tmp_path / 'cache'}", "trainer.enable_progress_bar=false"]
    coarse = [*TINY[:-4], *places, "model=own", "model.network=dilated", "+model.width=4", "trainer.max_epochs=2"]
    fine = [*FINE, *places, "training=parallel", "trainer.max_epochs=2", "model.operator=median", "model.widths=[4,4]"]
    fine += ["model.sources=[{backbone:two_scales,weights:null}]"]
    focal = ["loss=own", "loss._target_=kits_plugin.Focal", "+loss.gamma=2.0"]
    prepare(compose("train", coarse)["data"])
    for stage, own in (("coarse", coarse), ("fine", fine)):
        train(checked("train", [*own, *focal, f"run_dir={tmp_path / stage}"]))
        assert torch.load(tmp_path / stage / "last.ckpt", weights_only=True)["global_step"] == 10
    network, settings = load_network(tmp_path / "fine" / "best.ckpt", "fine", "cpu")
    assert settings.model.operator == "median"
    assert network.reach is None
    assert type(network.sources[0].adaptations[0].operator).__name__ == "Median"  # type: ignore[union-attr,index]
    assert load_network(tmp_path / "coarse" / "best.ckpt", "coarse", "cpu")[1].model.model_extra == {"width": 4}

    case, found = kits_tree / "case_00000" / "imaging.nii.gz", tmp_path / "found.nii.gz"
    files = [f"{stage}={tmp_path / stage / 'best.ckpt'}" for stage in ("coarse", "fine")]
    command = [sys.executable, "-m", "kits.predict", *files, f"input={case}", f"output={found}", "device=cpu"]
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert found.is_file()

    monkeypatch.undo()  # as on a machine without it
    plug_ins.cache_clear()
    with pytest.raises(KitsError, match=r"best\.ckpt: model\.network=dilated: give the name of an installed .*kits\.models"):
        load_network(tmp_path / "coarse" / "best.ckpt", "coarse", "cpu")
    with pytest.raises(KitsError, match=r"best\.ckpt: model\.operator=median: give one of .* of an installed plug-in .*kits\.op"):
        load_network(tmp_path / "fine" / "best.ckpt", "fine", "cpu")


def test_the_examples_loss_of_one_channel_is_that_of_a_sigmoid(site: Path) -> None:
    focal = build_loss({"_target_": "kits_plugin.Focal", "channel": False, "gamma": 2.0})
    logits, label = torch.randn(2, 1, 3, 4, 5), torch.randint(0, 3, (2, 3, 4, 5))
    p = torch.where(label > 0, logits[:, 0].sigmoid(), 1 - logits[:, 0].sigmoid())  # of the true side
    torch.testing.assert_close(focal(logits, label), (-((1 - p) ** 2) * p.log()).mean())


def test_help_names_what_is_installed(site: Path) -> None:
    lines = explain_group("model").splitlines()
    assert "model.operator=median: plug-in kits_plugin:Median" in lines
    assert "model.network=dilated: plug-in kits_plugin:Dilated" in lines
    assert "backbone=two_scales: plug-in kits_plugin:two_scales" in lines


def model(**own: object) -> dict[str, object]:
    """The fine network's options, with some of its own."""
    return {**compose("train", FINE)["model"], **own}


def network(name: str) -> dict[str, object]:
    return {"name": "own", "network": name, "classes": 1, "in_plane_multiple": 8}


@pytest.mark.parametrize(
    ("group", "points", "options", "told"),
    [
        ("operators", {}, model(operator="os.system"), r"model\.operator=os\.system: give one of p3d, .*, or the name of an .*"),
        (
            "operators",
            {"broken": "no_such_module:X"},
            model(operator="broken"),
            r"kits\.operators: broken \(no_such_module:X\) cannot be imp.*",
        ),
        ("operators", {"flat": "torch.nn:Flatten"}, model(operator="flat"), r"model\.operator=flat: .*; mend the plug-in"),
        (
            "operators",
            {"median": "other:Y"},
            model(operator="median"),
            r"kits\.operators: .* and .* are both named median; uninstall one of them",
        ),
        (
            "operators",
            {"p3d": "other:Y"},
            model(operator="p3d"),
            r"kits\.operators: a plug-in is named p3d, as one of ours; uninstall it, or give it .*",
        ),
        ("fusions", {"sum": "builtins:sum"}, model(fusion="sum"), r"model\.fusion=sum: TypeError: .*; mend the plug-in"),
        (
            "encoders",
            {"resnet18": "other:Y"},
            model(sources=[{"backbone": "resnet18", "weights": None}]),
            r"kits\.encoders: a plug-in is named resnet18, as one of timm's; uninstall it, or give it another name",
        ),
        (
            "encoders",
            {"mine": "torch.nn:Conv2d"},
            model(sources=[{"backbone": "mine", "weights": None}]),
            r"backbone=mine: LookupError: it registers no mine; decorate .* register_model; mend the plug-in",
        ),
        ("models", {"number": "math:pi"}, network("number"), r"model\.network=number: TypeError: 'float' object is .*"),
        ("models", {"text": "builtins:dict"}, network("text"), r"model\.network=text: TypeError: it makes dict, no torch.*"),
        ("models", {"flat": "torch.nn:Flatten"}, network("flat"), r"model\.network=flat: TypeError: .*'classes'; mend .*"),
        ("models", {}, {**network("dilated"), "depth": 3}, r"model\.network=dilated: TypeError: .*'depth'; mend the plug-in"),
        ("models", {"unet3d": "other:Y"}, network("dilated"), r"kits\.models: a plug-in is named unet3d, as one of ours; .*"),
    ],
)
def test_a_plug_in_that_cannot_be_is_one_line(
    site: Path, group: str, points: dict[str, str], options: dict[str, object], told: str
) -> None:
    install(site, "theirs", {f"kits.{group}": points} if points else {})
    with pytest.raises(KitsError, match=f"^{told}$"):
        build_network(options, pretrained=False)


def test_what_a_plug_in_s_network_has_not_is_refused_before_it_is_built(site: Path) -> None:
    own = ["model=own", "model.network=dilated", "data.cache=none"]
    staged = [one for one in FINE if not one.startswith("model.")]
    with pytest.raises(KitsError, match=r"^training=staged: model=own has no sources to train alone; leave it out$"):
        checked("train", [*staged, *own])
    with pytest.raises(KitsError, match=r"^freeze_epochs=1: model=own has no encoder that is known; leave it out$"):
        checked("train", [*TINY[:-4], *own, "freeze_epochs=1"])
    with pytest.raises(KitsError, match=r"^data\.coarse_size=32: the coarse network needs a multiple of 24; .*"):
        checked("train", [*TINY[:-4], *own, "model.in_plane_multiple=24"])
