"""The house's floors: a room imports only from rooms below it, heavy libraries live where they belong, and names are unique."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kits"
# From the ground up: a room imports only from rooms that stand before it. The commands import any of these.
ROOMS = ["core", "volume", "config", "io", "models", "data", "metrics", "painter", "reporting", "inference", "prediction"]
ROOMS += ["readout", "runs", "tracking", "training", "workflows", "hydra_plugins"]
COMMANDS = ["train", "predict", "prepare", "evaluate", "report", "measure", "download", "phantom", "export", "crossval"]
COMMANDS += ["pipeline", "boxes", "submission", "dashboard", "convert", "show_model"]
DOORS = ["__init__"]  # for Python: what the package offers imports what it needs when it is called
BENCH = "bench"  # imports what it measures; nothing imports it
# Each of these may be imported in these rooms only.
LIBRARIES = {
    "hydra": {"config", "hydra_plugins"},
    "optuna": {"hydra_plugins"},
    "pytorch_lightning": {"runs", "tracking", "training", "train", "bench"},
    "timm": {"models", "bench"},
    "torch": {"core", "metrics", "models", "data", "inference", "prediction", "readout", "runs", "tracking", "training", "bench"},
    "omegaconf": {"config", "hydra_plugins"},
    "huggingface_hub": {"data"},
    "nibabel": set(),
    "pydicom": {"io", "prediction"},
    "highdicom": {"prediction"},
    "monai": {"data", "bench"},
    "torchio": {"bench"},
    "nnunetv2": {"bench"},
    "dynamic_network_architectures": {"bench"},
    "onnx": {"models", "inference"},
    "onnxruntime": {"models", "inference"},
    "onnxscript": {"models", "inference"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


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


def below(own: str) -> set[str]:
    """The rooms that a room may import from."""
    if own in ROOMS:
        return set(ROOMS[: ROOMS.index(own)])
    return {"bench": {*ROOMS, *COMMANDS}, "__init__": set(ROOMS)}.get(own, set(ROOMS))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_below_its_own(path: Path) -> None:
    own = room(path)
    assert own in {*ROOMS, *COMMANDS, *DOORS, BENCH}, f"{own} has no place in the house"
    for name in imports(path):
        if name.startswith("kits.") and (other := name.split(".")[1]) not in {own, "__version__"}:
            assert other in below(own), f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_live_in_their_rooms(path: Path) -> None:
    for name in imports(path):
        library = name.split(".")[0]
        assert library not in LIBRARIES or room(path) in LIBRARIES[library], f"{path} imports {library}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 260


def test_the_root_holds_the_commands_and_what_python_may_call() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*COMMANDS, *DOORS}


def test_no_file_has_the_name_of_another() -> None:
    counts = Counter(path.name for path in modules() if path.name not in ("__init__.py", "__main__.py"))
    assert not [name for name, count in counts.items() if count > 1]


def test_no_public_class_has_the_name_of_another() -> None:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in modules())
    counts = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert not [name for name, count in counts.items() if count > 1 and not name.startswith("_")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_begins_with_one_short_sentence_in_plain_order(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) or not (text := ast.get_docstring(node)):
            continue
        first = text.splitlines()[0]
        assert len(first) < 100, first
        assert first.endswith((".", "?", ":")), first
        assert first.split()[0] not in {"What", "Whether", "How", "Where", "Who", "Whose", "Why", "Which", "When", "Of"}, first
        if isinstance(node, ast.FunctionDef) and not any("property" in ast.unparse(one) for one in node.decorator_list):
            assert first.split()[0] not in {"A", "An", "The"}, f"begin with the verb: {first}"


def test_models_and_data_do_not_know_each_other() -> None:
    for path in modules():
        other = {"models": "kits.data", "data": "kits.models"}.get(room(path))
        assert other is None or not any(name.startswith(other) for name in imports(path)), path
