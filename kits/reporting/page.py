"""One self-contained HTML page of many cases: a table, linked planes, and surfaces.

The planes are three, with outlines. Everything is inside the file: the styles, the script, plotly (compressed) for the surfaces,
and each case as a picture of its slices and a compressed block of labels and meshes. The page's own policy forbids every
connection and every script but these two.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from kits.core.labels import regions_of
from kits.io import whole_file
from kits.metrics import volumes_ml
from kits.reporting.run_notes import TUMOR, RunNotes, doubts_of
from kits.reporting.scene import COLORS, TRUTH_COLORS, Scene
from kits.reporting.slices import WINDOW_HU, focus_point
from kits.reporting.stack import overview, stack_of
from kits.reporting.surfaces import STEP_MM, mesh_of

MAPS = ("prediction", "truth")


@dataclass(frozen=True)
class Entry:
    """A case of the page.

    Attributes:
        row: what the table shows.
        view: what is opened with the case; None where there is no prediction.
    """

    row: dict[str, Any]
    view: dict[str, Any] | None


def entry_of(scene: Scene, run: RunNotes) -> Entry:
    """Collect everything that the page knows of a case."""
    volumes = {
        which: volumes_ml(labels, scene.spacing, regions_of(list(scene.names.values())))
        for which, labels in zip(MAPS, scene.maps, strict=False)
    }
    row: dict[str, Any] = {"name": scene.name, "scores": scene.scores, "volumes": volumes, "doubts": doubts_of(scene, run)}
    if run.tumors is not None:
        row["tumors"] = [{key: tumor[key] for key in TUMOR} for tumor in run.tumors]
    focus = focus_point(scene)
    stack = stack_of(scene)
    meshes, blocks = _meshes(scene)
    wide, width_mm, height_mm = overview(scene, focus[1])
    content = gzip.compress(b"".join([*blocks, stack.labels.tobytes()]), compresslevel=9, mtime=0)
    places = [(place - first) // factor for place, first, factor in zip(focus, stack.start, stack.factors, strict=True)]
    view = {
        "shape": list(stack.gray.shape),
        "spacing": list(stack.spacing),
        "start": list(stack.start),
        "factors": list(stack.factors),
        "focus": [min(max(0, place), n - 1) for place, n in zip(places, stack.gray.shape, strict=True)],
        "columns": stack.columns,
        "mosaic": _data_url(stack.mosaic()),
        "overview": {"picture": _data_url(wide), "mm": [width_mm, height_mm]},
        "volume": {"shape": list(scene.hu.shape), "spacing": list(scene.spacing)},
        "boxes": [box.to_list() for box in run.boxes],
        "seconds": run.seconds,
        "truth": scene.truth is not None,
        "meshes": meshes,
        "content": base64.b64encode(content).decode(),
    }
    return Entry(row, view)


def missing_entry(name: str, run: RunNotes, error: str | None = None) -> Entry:
    """Make the entry of a case without a prediction, or whose files cannot be read."""
    return Entry(
        {"name": name, "scores": {}, "volumes": {}, "doubts": [error or run.error or "no prediction"], "missing": True}, None
    )


def write_page(path: Path, entries: Sequence[Entry]) -> None:
    """Write the page: complete under its name, or not there at all."""
    script = _asset("page.js")
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_digest(script)} {_digest(plotly)}; style-src 'unsafe-inline'; img-src data: blob:;"
        " base-uri 'none'; form-action 'none'"
    )
    header = {
        "window_hu": list(WINDOW_HU),
        "step_mm": STEP_MM,
        "colors": {"prediction": COLORS, "truth": TRUTH_COLORS},
        "cases": [{**entry.row, "view": entry.view is not None} for entry in entries],
    }
    parts = {
        "policy": policy,
        "style": _asset("page.css"),
        "header": _json(header),
        "views": "\n".join(
            f'<script type="application/json" id="view-{number}">{_json(entry.view)}</script>'
            for number, entry in enumerate(entries)
            if entry.view is not None
        ),
        "plotly": base64.b64encode(gzip.compress(plotly.encode(), compresslevel=9, mtime=0)).decode(),
        "script": script,
    }
    with whole_file(path, path.suffix) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        # Cut at the marks first: what is put in may hold the text of a mark.
        text, *rest = _asset("page.html").split("{{")
        stream.write(text)
        for piece in rest:
            name, _, text = piece.partition("}}")
            stream.write(parts[name])
            stream.write(text)


def _meshes(scene: Scene) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Describe each surface with its numbers of vertices and triangles; return the surfaces too."""
    window = scene.marked
    described: list[dict[str, Any]] = []
    blocks: list[bytes] = []
    if window is None:
        return described, blocks
    for which, labels in zip(MAPS, scene.maps, strict=False):
        inside = np.ascontiguousarray(labels[window])
        for label, name in scene.names.items():
            mesh = mesh_of(inside == label, window, scene.spacing)
            if mesh is not None:
                described.append({"map": which, "name": name, "vertices": len(mesh.vertices), "triangles": len(mesh.triangles)})
                blocks.append(mesh.packed())
    return described, blocks


def _asset(name: str) -> str:
    return files("kits.reporting").joinpath("assets", name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """Return a script as a page's policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _data_url(picture: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def _json(content: Mapping[str, Any] | None) -> str:
    """Return JSON that cannot end the element that holds it, whatever the names in it."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
