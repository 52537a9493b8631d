"""Parts of a user's own by their `_target_`: trained with, gone on with, refused in one line, and never imported to predict."""

import json
import sys
from pathlib import Path

import pytest
import torch

from kits.config.composing import checked, compose
from kits.core.errors import KitsError
from kits.models.checkpoint import load_network, open_checkpoint
from kits.runs.folder import resumed_options
from kits.train import train
from tests.conftest import prepare
from tests.unit.test_trainer_options import TINY

# What a user would write.
MODULE = """
import pytorch_lightning as pl
import torch
from monai.transforms import RandomizableTransform

class Focal(torch.nn.Module):
    def __init__(self, gamma):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, label):
        assert logits.dtype == torch.float32 and label.dtype == torch.int64
        true = torch.where(label[:, None] > 0, logits, -logits)
        return (-(1 - true.sigmoid()) ** self.gamma * torch.nn.functional.logsigmoid(true)).mean()

class Counter(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *rest):
        self.seen.append(trainer.global_step)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]

class File(pl.loggers.logger.Logger):
    def __init__(self, path):
        super().__init__()
        self.path = path

    name = version = "file"

    def log_metrics(self, metrics, step=None):
        with open(self.path, "a", encoding="utf-8") as stream:
            print(step, *sorted(metrics), file=stream)

    def log_hyperparams(self, *params):
        pass

class Erase(RandomizableTransform):
    def __init__(self, prob, depth):
        super().__init__(prob)
        self.depth = depth

    def __call__(self, volume):
        self.randomize(None)
        start = self.R.randint(volume.shape[1] - self.depth)
        volume = volume.clone()
        volume[:, start : start + self.depth] = -1000.0
        return volume

class Full(pl.Callback):
    def on_train_batch_end(self, trainer, *of_batch):
        if trainer.global_step == 3:
            raise OSError("the disk\\nis full")

def scalar(**given):
    return 3
"""
OWN = ["loss=own", "loss._target_=their_parts.Focal", "+loss.gamma=2.0"]
OWN += ["optimizer=own", "optimizer._target_=torch.optim.NAdam", "optimizer.lr=0.01", "+optimizer.betas=[0.8,0.9]"]
OWN += ["scheduler=own", "scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.step_size=1", "+scheduler.gamma=0.5"]
OWN += ["+callbacks.counter._target_=their_parts.Counter"]
OWN += ["augmentation=light", "+augmentation.erase={_target_:their_parts.Erase,on:hu,prob:0.5,depth:2}"]


@pytest.fixture(scope="module")
def places(kits_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A prepared cache of the small tree, and the user's module on the path."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "their_parts.py").write_text(MODULE, encoding="utf-8")
    given = [*TINY, f"data.root={kits_tree}", f"data.cache={folder / 'cache'}"]
    prepare(compose("train", given)["data"])
    sys.path.insert(0, str(folder))
    return given


def test_a_training_with_own_parts_logs_resumes_and_is_predicted_from_without_them(places: list[str], tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log.txt"
    given = [*places, *OWN, f"run_dir={run}", f"+logger.file={{_target_:their_parts.File,path:'{log}'}}"]
    train(checked("train", [*given, "trainer.max_epochs=2"]))
    last = open_checkpoint(run / "last.ckpt")
    assert last["lr_schedulers"][0]["gamma"] == 0.5
    assert [group["lr"] for group in last["optimizer_states"][0]["param_groups"]] == [0.01 * 0.5**2]
    assert last["optimizer_states"][0]["param_groups"][0]["betas"] in ((0.8, 0.9), [0.8, 0.9])
    assert last["callbacks"]["Counter"] == {"seen": list(range(1, 9))}
    assert "3 " in log.read_text(encoding="utf-8")
    assert last["hyper_parameters"]["loss"] == {"_target_": "their_parts.Focal", "channel": False, "gamma": 2.0}

    options = resumed_options([f"resume={run}", "trainer.max_epochs=3"])
    assert options is not None
    train(options)
    assert json.loads((run / "manifest.json").read_text(encoding="utf-8"))["steps"] == 12
    assert open_checkpoint(run / "last.ckpt")["callbacks"]["Counter"] == {"seen": list(range(1, 13))}

    content = torch.load(run / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["loss"]["_target_"] = "no_such_module.Loss"
    torch.save(content, tmp_path / "copy.ckpt")
    assert load_network(tmp_path / "copy.ckpt", "coarse", "cpu")[1].stage == "coarse"


def test_a_loss_of_monais_takes_labels_with_a_channel(places: list[str], tmp_path: Path) -> None:
    loss = ["loss=own", "loss._target_=monai.losses.DiceLoss", "loss.channel=true", "+loss.sigmoid=true"]
    assert train(checked("train", [*places, *loss, "trainer.max_epochs=1", f"run_dir={tmp_path / 'run'}"])) >= 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["loss=own"], r"loss\._target_: no value given; add loss\._target_=\.\.\."),
        (
            ["loss=own", "loss._target_=Focal"],
            r"loss=\{_target_:Focal,channel:false\}: give _target_: MODULE\.NAME, and its arguments beside it",
        ),
        (
            ["loss=own", "loss._target_=their_parts.Missing"],
            r"loss\._target_=their_parts\.Missing: ImportError: Error loading 'their_parts\.Missing': .*; mend it or .*",
        ),
        (
            ["loss=own", "loss._target_=their_parts.Focal"],
            r"loss\._target_=their_parts\.Focal: TypeError: .*'gamma'; mend .*",
        ),
        (
            ["loss=own", "loss._target_=their_parts.scalar"],
            r"loss\._target_=their_parts\.scalar: gives int; name what gives a torch\.nn\.Module",
        ),
        (
            ["loss=own", "loss._target_=torch.nn.CrossEntropyLoss"],  # which a single channel of logits is not for
            r"loss\._target_=torch\.nn\.CrossEntropyLoss: IndexError: Target 1 is out of bounds\.; mend it or its arguments",
        ),
        (["loss=own", "loss._target_=torch.nn.Flatten"], r"loss\._target_=torch\.nn\.Flatten: TypeError: .*; mend it or its .*"),
        (
            ["optimizer=own", "optimizer._target_=torch.nn.Flatten"],
            r"optimizer\._target_=torch\.nn\.Flatten: gives Flatten; name what gives a torch\.optim\.Optimizer",
        ),
        (
            ["optimizer=own", "optimizer._target_=torch.optim.AdamW", "+optimizer.momentum=0.9"],
            r"optimizer\._target_=torch\.optim\.AdamW: TypeError: .*'momentum'; mend it or its arguments, here .*\bmomentum\b.*;"
            r" ~optimizer\.NAME leaves one out",
        ),
        (
            ["optimizer=own", "optimizer._target_=torch.optim.Adam", "optimizer.lr=fast"],
            r"optimizer\._target_=torch\.optim\.Adam: .*",
        ),
        (
            ["scheduler=own", "scheduler._target_=torch.optim.lr_scheduler.StepLR"],
            r"scheduler\._target_=torch\.optim\.lr_scheduler\.StepLR: TypeError: .*'step_size'.*",
        ),
        (["+callbacks.mine=3"], r"callbacks\.mine=3: no such key; a part of your own has _target_: MODULE\.NAME"),
        (
            ["+callbacks.mine._target_=their_parts.scalar"],
            r"callbacks\.mine\._target_=their_parts\.scalar: gives int; name what .*",
        ),
        (
            ["+logger.mine._target_=their_parts.Counter"],
            r"logger\.mine\._target_=their_parts\.Counter: gives Counter; name .*",
        ),
        (
            ["+augmentation.mine={_target_:their_parts.Erase,prob:1,depth:2}"],
            r"augmentation\.mine=\{.*\}: give keys with values, of one of your own _target_: MODULE\.NAME and on: hu or window",
        ),
        (["+augmentation.mine={_target_:monai.transforms.Flip,on:hu,axis:0}"], r"augmentation\.mine\._target_=.*'axis'.*"),
        (
            ["+augmentation.mine={_target_:monai.transforms.CenterSpatialCrop,on:hu,roi_size:4}"],
            r"augmentation\.mine\._target_=.*: ValueError: it makes \(4, 4, 4\) of \(8, 32, 32\); mend it or its arguments",
        ),
    ],
)
def test_a_part_that_cannot_be_is_one_line_before_anything_is_written(
    places: list[str], tmp_path: Path, given: list[str], told: str
) -> None:
    with pytest.raises(KitsError, match=f"^{told}$"):
        train(checked("train", [*places, *given, f"run_dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_a_part_that_fails_in_the_middle_of_a_training_is_blamed_with_its_line(places: list[str], tmp_path: Path) -> None:
    line = next(number for number, text in enumerate(MODULE.splitlines(), start=1) if "OSError" in text)
    told = rf"^callbacks\.full\._target_: OSError in their_parts\.py, line {line}: the disk is full; mend it$"
    with pytest.raises(KitsError, match=told):
        train(checked("train", [*places, "+callbacks.full._target_=their_parts.Full", f"run_dir={tmp_path / 'run'}"]))
    told = r"^optimizer\._target_: RuntimeError in lbfgs\.py, line \d+: view size is not compatible .*; mend it$"
    with pytest.raises(KitsError, match=told):
        train(
            checked("train", [*places, "optimizer=own", "optimizer._target_=torch.optim.LBFGS", f"run_dir={tmp_path / 'other'}"])
        )
