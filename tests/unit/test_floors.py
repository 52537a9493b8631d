"""The house's floors: a module imports only from floors below its own, and heavy libraries live where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kits"
ENTRY_POINTS = {
    "cli",
    "prepare",
    "train",
    "predict",
    "evaluate",
    "report",
    "phantom",
    "bench",
    "demo",
    "download",
    "pipeline",
    "crossval",
}
FLOORS = {
    **dict.fromkeys(("__init__", "errors", "labels"), -1),  # the ground itself: names and the exception
    **dict.fromkeys(("volume", "intensity", "config", "parallel"), 0),
    **dict.fromkeys(("io", "roi", "metrics", "postprocess", "models", "losses"), 1),
    **dict.fromkeys(("data", "inference"), 2),
    **dict.fromkeys(("checkpoint", "segmenter", "stages", "callbacks", "pictures", "benches", "steps"), 3),
    **dict.fromkeys(ENTRY_POINTS, 4),
}
# The checkpoint's format is what the stages write and the segmenter reads: rooms of one floor that need one another.
SAME_FLOOR = {("stages", "checkpoint"), ("segmenter", "checkpoint")}
# Each of these may be imported from these floors or rooms only.
LIBRARIES = {
    "hydra": {4},
    "pytorch_lightning": {3, 4},
    "timm": {"models"},
    "torch": {"models", "losses", "data", "inference", 3, 4},
    "omegaconf": {"config", 4},
    "huggingface_hub": {"data"},
    "nibabel": set(),
    "monai": {"data", "benches"},
    "torchio": {"benches"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """Dotted names of every import in a file, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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
            assert other == "cli" or own == "bench", f"{path} imports the entry point {other}"
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
    assert len(path.read_text().splitlines()) <= 300


def test_models_and_data_do_not_know_each_other() -> None:
    for path in modules():
        other = {"models": "kits.data", "data": "kits.models"}.get(room(path))
        assert other is None or not any(name.startswith(other) for name in imports(path)), path
