"""The house's floors: a module imports only from floors below its own, and heavy libraries live where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kits"
ROOMS = {
    -1: "errors labels quoting pooling",  # the ground itself: names, the exception, and how a text stands on a command line
    0: "components plain_files volume intensity config parallel sharding ranks logged",
    1: "io roi metrics postprocess plausible models losses schedules",
    2: "data devices inference pictures",
    3: ("checkpoint exported segmenter prediction stages callbacks distributed runs tracking sweeps benches steps readout"),
    4: (
        "prepare train sweep convert predict submission evaluate report phantom bench demo download dashboard"
        " pipeline crossval export measure"
    ),
    5: "api",
    6: "__init__",  # the door for Python: what it offers is imported from `api` when it is asked for
}
FLOORS = {room: floor for floor, rooms in ROOMS.items() for room in rooms.split()}
ENTRY_POINTS = {room for room, floor in FLOORS.items() if floor == 4}
# Rooms of one floor that need one another: the checkpoint's format is what the stages write, the segmenter reads and an exported
# file repeats, metrics.csv is where a resumed run goes on, sweeps and steps look into run folders, a bench measures the rooms
# beside it.
SAME_FLOOR = {
    ("inference", "devices"),
    ("stages", "checkpoint"),
    ("segmenter", "checkpoint"),
    ("readout", "prediction"),
    ("prediction", "segmenter"),
    ("prediction", "checkpoint"),
    ("prediction", "exported"),
    ("segmenter", "exported"),
    ("exported", "checkpoint"),
    ("checkpoint", "exported"),
    ("runs", "checkpoint"),
    ("callbacks", "runs"),
    ("tracking", "runs"),
    ("steps", "runs"),
    ("sweeps", "runs"),
    *(("benches", room) for room in ("stages", "callbacks", "tracking", "distributed", "runs", "segmenter", "readout")),
}
# Each of these may be imported from these floors or rooms only.
LIBRARIES = {
    "hydra": {"config", 4},
    "pytorch_lightning": {3, 4},
    "timm": {"models"},
    "torch": {"ranks", "models", "losses", "schedules", "data", "devices", "inference", 3, 4},
    "omegaconf": {"config", 4},
    "huggingface_hub": {"data"},
    "nibabel": set(),
    "pydicom": {"io", "prediction"},
    "highdicom": {"prediction"},
    "monai": {"data", "benches"},
    "torchio": {"benches"},
    "nnunetv2": {"benches"},
    "dynamic_network_architectures": {"benches"},
    "onnx": {"exported"},
    "onnxruntime": {"exported"},
    "onnxscript": {"exported"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """Dotted names of every import in a file, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
            if node.module == "kits":
                names |= {f"kits.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_floors_below_its_own(path: Path) -> None:
    own = room(path)
    assert own in FLOORS, f"{own} has no floor"
    for name in imports(path):
        if not name.startswith("kits."):
            continue
        other = name.split(".")[1]
        if other == own or other not in FLOORS or (own, other) in SAME_FLOOR:
            continue
        if own in ENTRY_POINTS and other in ENTRY_POINTS:
            assert own == "bench", f"{path} imports the entry point {other}"
            continue
        assert FLOORS[other] < FLOORS[own], f"{path} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[other]})"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_live_on_their_floors(path: Path) -> None:
    own = room(path)
    for name in imports(path):
        library = name.split(".")[0]
        if library in LIBRARIES:
            allowed = LIBRARIES[library]
            assert own in allowed or FLOORS[own] in allowed, f"{path} imports {library}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_one_room(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_models_and_data_do_not_know_each_other() -> None:
    for path in modules():
        other = {"models": "kits.data", "data": "kits.models"}.get(room(path))
        assert other is None or not any(name.startswith(other) for name in imports(path)), path
