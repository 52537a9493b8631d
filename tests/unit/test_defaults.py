"""A default has one home, conf/: no function, constant or look-up of the package repeats one."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from kits.config import conf_dir

PACKAGE = Path(__file__).parents[2] / "kits"
# By file: names that may, and why.
ALLOWED = {
    "inference/segmenter.py": {"device", "classes"},  # Segmenter.load is for Python, which reads no conf/
    "__init__.py": {"device"},  # likewise
    "config/schema/exported.py": {"precision"},  # likewise: SegmenterOptions
    "inference/members.py": {"mirror"},  # likewise
    "tracking/names.py": {"score"},  # what is logged has its names there; conf/ says which of them a sweep goes by
    "core/labels.py": {"classes"},  # what the label ids mean; conf/ says which of them a data set has
    "bench/data_parts.py": {"workers"},  # its bar is for two processes
}
LOOK_UPS = ("get", "pop", "setdefault")


@cache
def values_in_conf() -> dict[str, list[Any]]:
    """By last part of a key, every value that a file of conf/ gives it; null, `???` and interpolations are no defaults."""
    found: dict[str, list[Any]] = {}

    def visit(node: Any) -> None:
        for name, value in node.items():
            if isinstance(value, dict):
                visit(value)
            elif value is not None and "${" not in str(value) and value != "???" and name != "defaults":
                found.setdefault(str(name), []).append(value)

    for path in conf_dir().rglob("*.yaml"):
        visit(OmegaConf.to_container(OmegaConf.load(path)))
    return found


def defaults_in(tree: ast.AST) -> Iterator[tuple[str, ast.expr, int]]:
    """Name, default and line of parameters, annotated and upper-case assignments, and look-ups with a second argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            ordered = [*node.args.posonlyargs, *node.args.args]
            pairs = [*zip(reversed(ordered), reversed(node.args.defaults), strict=False)]
            pairs += [(name, value) for name, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value]
            yield from ((name.arg, value, node.lineno) for name, value in pairs)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id.lower(), node.value, node.lineno
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            yield node.targets[0].id.lower(), node.value, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOK_UPS:
            match node.args:
                case [ast.Constant(value=name), default]:
                    yield str(name), default, node.lineno


def literal(node: ast.expr) -> Any:
    """The value of a constant expression, or None."""
    try:
        found = ast.literal_eval(node)
    except ValueError:
        return None
    return list(found) if isinstance(found, tuple) else found


def repeated(source: str) -> list[tuple[str, int]]:
    """Name and line of what in this source is called like a key in conf/ and has the value that the key has there."""
    known = values_in_conf()
    found = []
    for name, value, line in defaults_in(ast.parse(source)):
        default = literal(value)
        if default is not None and any(default == one and type(default) is type(one) for one in known.get(name, [])):
            found.append((name, line))
    return found


def test_no_default_of_conf_stands_in_the_code_too() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        found += [
            f"{file}:{line}: {name}"
            for name, line in repeated(path.read_text(encoding="utf-8"))
            if name not in ALLOWED.get(file, set())
        ]
    assert not found, "a default in conf/ is repeated in the code"


@pytest.mark.parametrize(
    "source",
    [
        "def f(patience=5): ...",
        "def f(*, window_hu=(-100, 300)): ...",
        "class C:\n    lr: float = 1e-3",
        "COARSE_SIZE = 256",
        "config.get('max_epochs', 100)",
    ],
)
def test_a_repeated_default_would_be_seen(source: str) -> None:
    assert repeated(source)


def test_another_value_or_none_at_all_is_no_repetition() -> None:
    assert not repeated("def f(patience, lr=None, *, max_epochs=7): ...\nconfig.get('seed')")
