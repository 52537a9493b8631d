"""Operators of installed packages: trained with, built again from a checkpoint, and refused in one line."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kits.config.composing import checked, compose
from kits.config.plug_ins import plug_ins
from kits.config.usage import explain_group
from kits.core.errors import KitsError
from kits.data.preparation import prepare
from kits.models import build_network
from kits.models.checkpoint import load_network
from kits.train import train
from tests.unit.test_runs import FINE

EXAMPLE = Path(__file__).parents[2] / "experiments" / "plugin"


def install(site: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """Write what pip leaves of a package: its metadata with entry points."""
    folder = site / f"{name}-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n", encoding="utf-8")
    lines = [f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in own.items()) for group, own in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, the example of experiments/ among them."""
    folder = tmp_path / "site"
    folder.mkdir()
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(folder, project["name"], project["entry-points"])
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(folder))
    plug_ins.cache_clear()
    yield folder
    plug_ins.cache_clear()


def test_the_example_trains_ten_steps_and_its_checkpoint_is_built_again(site: Path, kits_tree: Path, tmp_path: Path) -> None:
    own = [
        *FINE,
        f"data.root={kits_tree}",
        f"data.cache={tmp_path / 'cache'}",
        f"run_dir={tmp_path / 'run'}",
        "training=parallel",
    ]
    own += ["model.operator=median", "loss=own", "loss._target_=kits_plugin.Focal", "+loss.gamma=2.0"]
    own += ["trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
    prepare(compose("train", own)["data"])
    train(checked("train", own))
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 10
    network, config = load_network(tmp_path / "run" / "best.ckpt", "fine", "cpu")
    assert config["model"]["operator"] == "median"
    assert network.reach is None
    assert type(network.sources[0].adaptations[0].operator).__name__ == "Median"  # type: ignore[union-attr,index]
    assert "model.operator=median: plug-in kits_plugin:Median" in explain_group("model")


def model(operator: str) -> dict[str, object]:
    options: dict[str, object] = compose("train", FINE)["model"]
    return {**options, "operator": operator}


@pytest.mark.parametrize(
    ("operator", "points", "told"),
    [
        (
            "os.system",
            {},
            r"model\.operator=os\.system: give one of p3d, .*, or the name of a plug-in .*",
        ),
        (
            "broken",
            {"broken": "no_such_module:X"},
            r"kits\.operators: broken \(no_such_module:X\) cannot be imp.*",
        ),
        ("flat", {"flat": "torch.nn:Flatten"}, r"model\.operator=flat: .*; mend the plug-in"),
        ("median", {"median": "other:Y"}, r"kits\.operators: .* and .* are both named median; uninstall one of them"),
        ("p3d", {"p3d": "other:Y"}, r"kits\.operators: a plug-in is named p3d, as one of ours; uninstall it, or give it .*"),
    ],
)
def test_a_plug_in_that_cannot_be_is_one_line(site: Path, operator: str, points: dict[str, str], told: str) -> None:
    install(site, "theirs", {"kits.operators": points} if points else {})
    with pytest.raises(KitsError, match=f"^{told}$"):
        build_network(model(operator), pretrained=False)
