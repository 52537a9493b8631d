"""The saved workspace: made of names that trainings log, created and updated on a server, or written to a file."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kits.config import flat
from kits.config.composing import checked, compose
from kits.core.labels import CLASSES, KITS19_CLASSES
from kits.tracking.names import (
    CASES,
    COARSE_SCORES,
    CONFUSION_TABLE,
    DATA_WAIT,
    GRADIENT_NORM,
    LEARNING_RATE,
    OVERLAYS,
    SAMPLE_RATE,
    SCORE,
    SURFACES,
    fine_scores,
    loss_names,
    score_name,
)
from kits.tracking.workspace import update_dashboard

# wandb-workspaces declares its panels as pydantic's first version did.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

STEP_NAMES = (LEARNING_RATE, GRADIENT_NORM, SAMPLE_RATE, DATA_WAIT)


def specification(folder: Path, *overrides: str) -> dict[str, Any]:
    """What is written where no server is asked."""
    path = folder / "dashboard.json"
    update_dashboard(checked("dashboard", ["offline=true", f"specification={path}", *overrides]))
    return json.loads(path.read_text(encoding="utf-8"))


def strings(node: Any) -> Iterator[str]:
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from strings(child)
    if isinstance(node, str):
        yield node


def names(spec: dict[str, Any]) -> set[str]:
    """Every name of something logged in the panels."""
    found = (re.search(r"\b(train|val)/\w+", text) for text in strings(spec))
    return {match[0] for match in found if match}


def panels(spec: dict[str, Any], section: str) -> list[dict[str, Any]]:
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    (found,) = [entry["panels"] for entry in sections if entry["name"] == section]
    return found


@pytest.mark.parametrize(("data", "classes"), [("kits19", KITS19_CLASSES), ("kits23", CLASSES)])
def test_the_panels_show_all_that_trainings_log_and_nothing_else(tmp_path: Path, data: str, classes: tuple[str, ...]) -> None:
    spec = specification(tmp_path, f"data={data}")
    # test_tracking holds that these are the names that trainings log.
    scores = {*fine_scores(classes), *COARSE_SCORES} - {"mean"}
    expected = {*loss_names(3, ("dice", "ce")), *STEP_NAMES, *map(score_name, scores)}
    assert names(spec) == expected | {OVERLAYS, SURFACES, CASES, CONFUSION_TABLE}


def test_sweeps_and_worst_cases_have_their_panels(tmp_path: Path) -> None:
    spec = specification(tmp_path)
    kinds = [panel["viewType"] for panel in panels(spec, "Sweeps")]
    assert kinds[0] == "Parallel Coordinates Plot"
    columns = [column["accessor"] for column in panels(spec, "Sweeps")[0]["config"]["columns"]]
    assert columns[-1] == f"summary:{SCORE}"
    parameters = [re.sub(r"^c::|^config:|\.value", "", column) for column in columns[:-1]]
    known = flat(compose("train", ["stage=fine"]))
    assert parameters == ["optimizer.lr", "loss.name", "sampling.batch_size", "seed"]
    assert set(parameters) <= set(known)
    assert names({"panels": panels(spec, "Worst cases")}) == {OVERLAYS, SURFACES, CASES, CONFUSION_TABLE}


class Server:
    """W&B's GraphQL as far as a workspace needs it, on the loopback."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []
        self.saved: list[dict[str, Any]] = []
        self.seen: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = json.dumps({"data": server.answer(body["query"], body.get("variables") or {})}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(query)
        if "upsertView" in query:
            self.saved.append(variables)
            view = {"id": variables.get("id") or f"view{len(self.views)}", "name": variables["name"]}
            if "id" not in variables:
                self.views.append({**view, "displayName": variables["displayName"]})
            return {"upsertView": {"view": view, "inserted": "id" not in variables}}
        if "allViews" in query:
            return {"project": {"allViews": {"edges": [{"node": view} for view in self.views]}}}
        viewer = {"id": "u", "entity": "clinic", "username": "me", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"features": []}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.http.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_workspace_is_created_and_then_updated(server: Server, tmp_path: Path, capsys) -> None:
    config = checked("dashboard", [f"specification={tmp_path / 'dashboard.json'}"])
    server.views.append({"id": "other", "name": "nw-other-v", "displayName": "somebody else's"})
    for _ in range(2):
        assert "clinic/kits" in update_dashboard(config), capsys.readouterr().out
    created, updated = server.saved
    assert "id" not in created
    assert (updated["id"], updated["name"]) == ("view1", created["name"])
    assert (created["entityName"], created["projectName"], created["displayName"]) == ("clinic", "kits", "kits")
    assert names(json.loads(created["spec"])) == names(specification(tmp_path))


def test_without_a_key_the_specification_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    path = tmp_path / "dashboard.json"
    assert update_dashboard(checked("dashboard", [f"specification={path}"])) == str(path)
    assert "W&B: " in capsys.readouterr().out
    assert json.loads(path.read_text(encoding="utf-8"))["displayName"] == "kits"
