"""No command opens a connection that nobody asked for, and no library writes what its makers would like to know."""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from kits.prediction.leaderboard import TEST_CASES
from tests.conftest import kidney_pair, write_case
from tests.predicting import STAGES, write_checkpoint
from tests.unit.test_floors import COMMANDS

LIBRARIES = (
    "huggingface_hub, highdicom, matplotlib.pyplot, monai.transforms, onnxruntime, optuna, plotly.graph_objects, pydicom,"
    " pytorch_lightning, skimage.measure, submitit, timm, torch, torchvision, wandb, wandb_workspaces.reports.v2"
)
# A session, by which onnxruntime would report; the longest that it waits before it does is some seconds.
SESSION = """
import sys, time
import kits
import {libraries}
from onnx import TensorProto, helper
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:]), ir_version=9,
                          opset_imports=[helper.make_opsetid("", 17)])
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
time.sleep({wait})
"""
# kits.download asks only the servers that its options name: here one that runs beside it.
DOWNLOAD = """
import subprocess, sys
from hashlib import sha256
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.server import GIT, HUB, Server
case = Path("tree/case_00000")
files = {{
    f"{{HUB}}/case_00000.nii.gz": (case / "imaging.nii.gz").read_bytes(),
    f"{{GIT}}/case_00000/segmentation.nii.gz": (case / "segmentation.nii.gz").read_bytes(),
    f"{{GIT}}/kits.json": b"[]",
}}
with Server(files) as server:
    addresses = [f"hub_endpoint={{server.url}}", f"labels_url={{server.url}}{{GIT}}"]
    subprocess.run([sys.executable, "-m", "kits.download", "output=downloaded", "cases=0", *addresses], check=True)
    assert server.files.keys() <= server.sent.keys()
"""
SMALL_DATA = ["data.coarse_size=32", "data.roi_rule.min_voxels=100"]
# What makes the trainings of a workflow tiny.
TINY = [
    "sampling.patches_per_epoch=2", "sampling.batch_size=1", "trainer.max_epochs=1", "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu", "data.loader_workers=0", "augmentation=none",
]  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    """That of a user who has set nothing, with a home and a folder for temporary files of their own."""
    unset = ("TELEMETRY", "WANDB", "DO_NOT_TRACK", "HF_")
    kept = {name: value for name, value in os.environ.items() if not any(part in name for part in unset)}
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    places = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "XDG_CACHE_HOME": str(home / ".cache")}
    return {**kept, **places, "PYTHONWARNINGS": "ignore"}


def test_onnxruntime_leaves_no_marks_of_its_user(tmp_path: Path) -> None:
    code = SESSION.format(libraries="onnxruntime", wait=0)
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path / "home"), check=True, timeout=120)
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def loopback_up() -> None:
    """In a network namespace of its own: W&B's service and DDP talk to themselves through it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING


def connections(arguments: list[str], folder: Path) -> list[str]:
    """Addresses beyond this machine, or a name server's, that a Python command tries to reach; native code does not escape it."""
    trace, wrapper = folder / "trace.txt", folder / "wrapper.py"
    wrapper.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
                       "from tests.unit.test_connections import loopback_up; loopback_up()\n"
                       "import os; os.execvp(sys.argv[1], sys.argv[1:])\n")  # fmt: skip
    traced = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace), sys.executable, *arguments]
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, str(wrapper), *traced],
        env=environment(folder / "home"), capture_output=True, text=True, timeout=500, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in trace.read_text(encoding="utf-8", errors="replace").splitlines() if "AF_INET" in line]
    return [line for line in lines if "htons(53)" in line or not any(own in line for own in ('"127.', '"::1"', '"::ffff:127.'))]


def can_trace() -> bool:
    return bool(shutil.which("strace") and shutil.which("unshare")) and subprocess.run(
        ["unshare", "-rn", "strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False
    ).returncode == 0  # fmt: skip


traced = pytest.mark.skipif(not can_trace(), reason="needs strace and network namespaces")


@pytest.mark.slow
@traced
def test_what_would_connect_is_seen(tmp_path: Path) -> None:
    """The test can fail: with its switch undone onnxruntime looks for its collector."""
    code = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = ''\n" + SESSION.format(libraries="onnxruntime", wait=15)
    assert connections(["-c", code], tmp_path)


@pytest.mark.slow
@traced
def test_no_library_connects(tmp_path: Path) -> None:
    assert connections(["-c", SESSION.format(libraries=LIBRARIES, wait=15)], tmp_path) == []


def write_card(folder: Path) -> Path:
    """A folder as kits.export format=shipped leaves one, its files but a line each."""
    folder.mkdir()
    files = {}
    for name in ("card.md", "coarse.safetensors", "fine.safetensors"):
        (folder / name).write_text(name, encoding="utf-8")
        files[name] = {"bytes": len(name), "sha256": sha256(name.encode()).hexdigest()}
    origins = {stage: {"checkpoints": ["0" * 64], "trained_on": None} for stage in ("coarse", "fine")}
    agreement = {"shape": [1, 1, 1], "kidney": 1.0, "tumor": 1.0}
    card = {"kits_card": 1, "kits_version": "0", "written": "today", "files": files, "origins": origins, "agreement": agreement}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


@pytest.mark.slow
@traced
def test_no_command_connects(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(3):
        write_case(tree, f"case_{number:05d}", *kidney_pair(number))
    pair = {stage: write_checkpoint(tmp_path / f"{stage}.ckpt", stage) for stage in ("coarse", "fine")}
    (tmp_path / "submitted").mkdir()
    for case in TEST_CASES:
        shutil.copy(tree / "case_00000" / "segmentation.nii.gz", tmp_path / "submitted" / f"{case}.nii.gz")
    data = [f"data.root={tree}", *SMALL_DATA]
    training = [f"data.cache={tmp_path / 'cache'}", *data, *STAGES["coarse"], "debug=fast", "trainer.accelerator=cpu"]
    steps = [*data, *TINY, "+predict.device=cpu"]
    stages = [f"+{stage}.{override}" for stage, overrides in STAGES.items() for override in overrides[1:]]
    files, cpu = [f"{stage}={path}" for stage, path in pair.items()], "device=cpu"
    exported = [f"{stage}={tmp_path / 'exported' / stage}.onnx" for stage in pair]
    folds = [f"{tmp_path / 'folds' / fold / 'best.ckpt'}" for fold in ("coarse0", "coarse1")]
    found = f"prediction={tmp_path / 'found'}"
    pairs = ["data=pairs", "data.images=*/imaging.nii.gz", "data.label_maps=*/segmentation.nii.gz"]
    commands: dict[str, list[str]] = {
        "phantom": [f"output={tmp_path / 'painted'}", "cases=1", "matrix=32", "spacing_xy=[8,8]", "workers=1"],
        "convert": [*pairs, f"root={tree}", f"output={tmp_path / 'converted'}"],
        "prepare": [f"data.cache={tmp_path / 'cache'}", *data],
        "train": [*training, f"run_dir={tmp_path / 'run'}", "logger=wandb"],
        "train resumed": [f"resume={tmp_path / 'run'}", "trainer.max_epochs=4"],
        "export": [*files, f"output={tmp_path / 'exported'}"],
        "show_model": [f"folder={write_card(tmp_path / 'shipped')}"],
        "predict": [*files, f"input={tree}", f"output={tmp_path / 'found'}", cpu],
        "predict by onnx": [*exported, "backend=onnx", f"input={tree}", f"output={tmp_path / 'by_onnx'}", cpu],
        "evaluate": [found, f"truth={tree}", f"output={tmp_path / 'scores'}"],
        "measure": [f"input={tree}", f"image={tree}", f"output={tmp_path / 'measured'}", "workers=1"],
        "report": [f"image={tree}", found, f"output={tmp_path / 'page'}"],
        "submission": [f"predictions={tmp_path / 'submitted'}"],
        "crossval": ["split.k=2", f"output={tmp_path / 'folds'}", *steps, *STAGES["coarse"]],
        "boxes": [f"coarse=[{','.join(folds)}]", f"input={tree}", f"output={tmp_path / 'boxes'}", cpu],
        "pipeline": ["study=painted", "split=paper", f"output={tmp_path / 'out'}", *steps, *stages],
        "dashboard": ["offline=true", f"specification={tmp_path / 'dashboard.json'}"],
        "bench": ["evaluate", "shape=[60,96,100]", "bars.speed.least=0.01"],
    }
    reached = {name: connections(["-m", f"kits.{name.split()[0]}", *arguments], tmp_path) for name, arguments in commands.items()}
    sweep = ["-m", *training, "hydra/sweeper=tpe", "hydra.sweeper.n_trials=1", "logger=tensorboard", "loss.bias=interval(1,5)"]
    reached["train by a sweeper"] = connections(["-m", "kits.train", *sweep, f"hydra.sweep.dir={tmp_path / 'sweep'}"], tmp_path)
    reached["download"] = connections(["-c", DOWNLOAD.format(root=str(Path(__file__).parents[2]))], tmp_path)
    assert {name.split()[0] for name in reached} == {*COMMANDS, "bench"}, "every command, and no other"
    assert not any(reached.values()), reached
