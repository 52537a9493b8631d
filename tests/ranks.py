"""`python -m tests.ranks FOLDER coarse|many|fine`: the trainings of tests/e2e/test_ddp.py, on one process and on several.
A program of its own, so that the libraries are imported once: its processes are forks, which is safe while it has neither
trained nor started threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import kits.predict
from kits.config.composing import compose
from kits.prediction.ledger import RunReport
from kits.train import train
from kits.training.modules import MODULES, Examined, StageModule
from tests.conftest import data_of, kidney_pair, prepare, training_options, write_case

COMMON = [
    "split=paper",
    "split.validation_fraction=0.5",
    "data.coarse_size=32",
    "data.roi_rule.min_voxels=100",
    "data.workers=1",
    "data.loader_workers=0",
    "augmentation=none",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
]
COARSE = [
    "stage=coarse",
    "sampling.patch=[20,32,32]",
    "sampling.patches_per_epoch=9",  # does not go round: the ninth is left out
    "model.widths=[4,8]",
    "model.strides=[[1,2,2],[2,2,2]]",
    "model.kernels=[[3,3,3],[3,3,3]]",
]
FINE = [
    "stage=fine",
    "sampling.patch=[4,32,32]",
    "sampling.patches_per_epoch=4",
    "optimizer.lr=0.01",
    "inference.window=20",
    "model.sources=[{backbone:test_efficientnet,weights:null},{backbone:test_efficientnet,weights:null,plane:coronal}]",
    "model.out_indices=[0,1]",
    "model.widths=[4,4]",
    "model.width=4",
    "model.stem_width=2",
    "model.deep_supervision=1",
]
LEARNED_STATISTICS = ["training=staged", "staged_shares=[0.34,0.33]", "model.freeze_statistics=false"]
# By group and run: processes, and what each trains.
RUNS: dict[str, dict[str, tuple[int, list[str]]]] = {
    "coarse": {
        "coarse1": (1, [*COARSE, "sampling.batch_size=4"]),
        "coarse2": (2, [*COARSE, "sampling.batch_size=2"]),
    },
    "many": {"coarse4": (4, [*COARSE, "sampling.batch_size=1"])},
    "fine": {
        "fine1": (1, [*FINE, "sampling.batch_size=2"]),
        "fine2": (2, [*FINE, "sampling.batch_size=1"]),
        "staged4": (4, [*FINE, *LEARNED_STATISTICS, "sampling.batch_size=1"]),
    },
}


def run_all(folder: Path, group: str) -> None:
    """Make the cases and the cache, then every run of a group."""
    for number in range(6):
        write_case(folder / "tree", f"case_{number:05d}", *kidney_pair(number, (20 + 4 * number, 64, 64)))
    common = [*COMMON, f"data.root={folder / 'tree'}", f"data.cache={folder / 'cache'}"]
    prepare(compose("train", [*COARSE, *common])["data"])
    for name, (ranks, overrides) in RUNS[group].items():
        several = ["trainer=ddp", f"trainer.devices={ranks}"] if ranks > 1 else []
        config = compose("train", [*several, *overrides, *common, f"run_dir={folder / name}"])
        together(ranks, train_and_tell, config)
        together(1, score_again, config)
    if group == "fine":
        config = compose("train", [*COARSE, "sampling.batch_size=1", *common, f"run_dir={folder / 'coarse'}"])
        together(1, train_and_tell, config)
        together(2, predict_share, {"run_dir": str(folder / "predicted"), "folder": folder})


def predict_share(rank: int, config: dict[str, Any]) -> None:
    """Predict as a researcher does, with nothing on the command line that tells the processes apart; `predicted<rank>.txt` names
    each case that this process predicted."""
    folder, add = config["folder"], RunReport.add

    def told(self: RunReport, scan: Any, content: Any) -> None:
        with (folder / f"predicted{rank}.txt").open("a") as stream:
            stream.write(f"{scan.name}\n")
        add(self, scan, content)

    RunReport.add = told  # type: ignore[method-assign]
    checkpoints = [f"coarse={folder / 'coarse' / 'best.ckpt'}", f"fine={folder / 'fine1' / 'best.ckpt'}"]
    sys.argv = ["predict", *checkpoints, f"input={folder / 'tree'}", f"output={config['run_dir']}", "device=cpu"]
    kits.predict.main()


def train_and_tell(rank: int, config: dict[str, Any]) -> None:
    """Train; `scored<rank>.txt` names each case that this process scored, the epoch, and the network that scored it."""
    folder = Path(config["run_dir"])
    folder.mkdir(exist_ok=True)
    sys.stdout = (folder / f"stdout{rank}.txt").open("w", buffering=1)
    module = MODULES[config["stage"]]
    examine = module.examine

    def told(self: StageModule[Any], case: Any) -> Examined:
        with (folder / f"scored{rank}.txt").open("a") as stream:
            content = b"".join(tensor.numpy().tobytes() for tensor in self.state_dict().values())
            stream.write(f"{case.id} {self.current_epoch} {hashlib.sha256(content).hexdigest()}\n")
        return examine(self, case)

    module.examine = told  # type: ignore[method-assign]
    train(training_options(config))


def score_again(rank: int, config: dict[str, Any]) -> None:
    """`scores.json`: the best checkpoint's scores of every validation case, from one process that knows of no others."""
    folder = Path(config["run_dir"])
    module = MODULES[config["stage"]](training_options(config), pretrained=False)
    module.load_state_dict(torch.load(folder / "best.ckpt", weights_only=True)["state_dict"])
    module.eval()
    with torch.no_grad():
        scores = {case.id: module.examine(case).scene.scores for case in data_of(config).cases["validation"]}
    (folder / "scores.json").write_text(json.dumps(scores))


def together(ranks: int, work: Callable[[int, dict[str, Any]], None], config: dict[str, Any]) -> None:
    """`work(rank, config)` in as many processes, started as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [get_context("fork").Process(target=alone, args=(rank, ranks, port, work, config)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes), config["run_dir"]


def alone(rank: int, ranks: int, port: int, work: Callable[[int, dict[str, Any]], None], config: dict[str, Any]) -> None:
    """One of those processes."""
    torch.set_num_threads(1)
    if ranks > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
        os.environ.update({name: str(value) for name, value in {**names, **address}.items()})
    work(rank, config)


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), sys.argv[2])
