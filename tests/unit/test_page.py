"""What the page holds, read back from the file; what it does in a browser is in test_page_in_browser.py."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kits.metrics import score_case
from kits.readout.cohort import readout_of
from kits.reporting.page import entry_of, missing_entry, write_page
from kits.reporting.run_notes import RunNotes, doubts_of, read_notes
from kits.reporting.scene import Scene
from kits.reporting.stack import MOST_VOXELS, factors_of, stack_of
from kits.reporting.surfaces import MOST_TRIANGLES, STEP_MM, mesh_of
from kits.volume import Grid, Volume
from kits.volume.rois import Box
from tests.conftest import ellipsoid

SPACING = (5.0, 1.0, 0.8)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def scene(name: str = "case_00007", truth: bool = True) -> Scene:
    """Two kidneys of 90 to 100 mL and a tumor in the left one; the truth lies two voxels farther to the left."""
    labels = np.zeros((26, 70, 160), np.uint8)
    for x in (40, 120):
        labels[ellipsoid(labels.shape, (13, 35, x), (9, 18, 28))] = 1
    labels[ellipsoid(labels.shape, (15, 30, 128), (3, 8, 8))] = 2
    hu = np.where(labels > 0, 150, 30).astype(np.int16)
    hu[:, :4], hu[:, 66:] = -1000, -1000
    true = np.roll(labels, 2, axis=2) if truth else None
    return Scene(name, hu, labels, true, SPACING, {} if true is None else score_case(labels, true))


def block(page: str, name: str) -> dict[str, object]:
    """A JSON block of a page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page)
    assert found
    return json.loads(found[1])


def unpacked(numbers: np.ndarray) -> np.ndarray:
    """What the page's script makes of differences that wrap at 16 bits."""
    return np.cumsum(numbers.astype(np.int64), axis=-1) & 0xFFFF


def test_a_surface_keeps_size_and_place_and_faces_outward() -> None:
    radius, center = 22.0, (55.0, 80.0, 60.0)
    z, y, x = np.ogrid[:22, :160, :150]
    mask = sum(((g + 0.5) * s - c) ** 2 for g, s, c in zip((z, y, x), SPACING, center, strict=True)) < radius**2
    mesh = mesh_of(mask[4:, 10:, 5:], (slice(4, 22), slice(10, 160), slice(5, 150)), SPACING)
    assert mesh is not None
    away = mesh.vertices - np.array(center[::-1])
    np.testing.assert_allclose(away.mean(axis=0), 0, atol=0.5)
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), radius, atol=2.5)
    corners = mesh.vertices[mesh.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * (corners.mean(axis=1) - np.array(center[::-1]))).sum(axis=1) > 0).mean() > 0.99
    enclosed = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert enclosed == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)


def test_a_packed_surface_is_read_back() -> None:
    mesh = mesh_of(ellipsoid((14, 40, 40), (7, 20, 20), (5, 12, 12)), (slice(0, 14), slice(0, 40), slice(0, 40)), SPACING)
    assert mesh is not None
    numbers = np.frombuffer(mesh.packed(), "<u2")
    vertices = unpacked(numbers[: mesh.vertices.size].reshape(3, -1)).astype(np.int16).T * STEP_MM
    np.testing.assert_allclose(vertices, mesh.vertices, atol=STEP_MM)
    np.testing.assert_array_equal(unpacked(numbers[mesh.vertices.size :]).reshape(-1, 3), mesh.triangles)


def test_few_triangles_however_rough_and_a_speck_is_still_shown() -> None:
    rough = np.random.default_rng(0).random((40, 60, 60)) > 0.5
    window = slice(0, 40), slice(0, 60), slice(0, 60)
    mesh = mesh_of(rough, window, (2.0, 2.0, 2.0))
    assert mesh is not None
    assert len(mesh.triangles) < 2 * MOST_TRIANGLES
    speck = np.zeros((40, 60, 60), bool)
    assert mesh_of(speck, window, SPACING) is None
    speck[20:22, 30:32, 30:32] = True
    assert mesh_of(speck, window, SPACING) is not None


def test_the_stack_holds_the_labels_of_its_place_and_the_window_of_gray() -> None:
    shown = scene()
    stack = stack_of(shown)
    z, y, x = (tuple(np.array(stack.gray.shape) // 2) + np.array([0, 0, 3])).tolist()
    at = tuple(s + p * f + f // 2 for s, p, f in zip(stack.start, (z, y, x), stack.factors, strict=True))
    assert stack.labels[z, y, x] == shown.prediction[at] + 16 * shown.truth[at]
    assert set(np.unique(stack.labels & 15)) == {0, 1, 2}
    assert set(np.unique(stack.labels >> 4)) == {0, 1, 2}
    kidney = (stack.labels == 17).nonzero()
    assert stack.gray[kidney].mean() == pytest.approx((150 + 160) / 400 * 255, abs=2)
    picture = np.asarray(Image.open(BytesIO(stack.mosaic())).convert("L"))
    height, width = stack.gray.shape[1:]
    row, column = divmod(z, stack.columns)
    tile = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
    assert abs(tile.astype(int) - stack.gray[z]).mean() < 6


@pytest.mark.parametrize(("shape", "spacing"), [((1059, 512, 512), (0.5, 0.44, 0.44)), ((3, 9, 9), (5.0, 1.0, 1.0))])
def test_a_stack_is_never_too_large(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    factors = factors_of(tuple(slice(0, n) for n in shape), spacing)  # type: ignore[arg-type]
    assert 1 <= np.prod([n // f for n, f in zip(shape, factors, strict=True)]) <= MOST_VOXELS


def test_the_page_holds_each_case_and_needs_nothing_else(tmp_path: Path) -> None:
    run = RunNotes([Box((1, 10, 10), (20, 60, 60))], {"read": 0.5}, ["touches the border"])
    write_page(tmp_path / "index.html", [entry_of(scene(), run), missing_entry("case_00008", RunNotes())])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "{{" not in page.partition("<script>")[0]
    assert len(page) < 2.5e6  # nearly all of it is plotly: twenty cases of half a megabyte must fit into 15 MB
    ours = page[: page.rindex("<script>")]  # the last script is our own
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", re.sub(r"<script>.*?</script>", "", ours, flags=re.DOTALL))
    first, second = block(page, "header")["cases"]  # type: ignore[misc]
    assert first["scores"]["kidney"] == pytest.approx(score_case(scene().prediction, scene().truth)["kidney"])
    assert first["volumes"]["prediction"]["tumor"] == pytest.approx(np.count_nonzero(scene().prediction == 2) * 0.004)
    assert first["doubts"] == ["touches the border"]
    assert second["missing"]
    view = block(page, "view-0")
    assert view["boxes"] == [[[1, 10, 10], [20, 60, 60]]]
    content = gzip.decompress(base64.b64decode(view["content"]))  # type: ignore[arg-type]
    meshes = sum(6 * (mesh["vertices"] + mesh["triangles"]) for mesh in view["meshes"])  # type: ignore[attr-defined]
    assert len(content) == meshes + np.prod(view["shape"])  # type: ignore[call-overload]
    assert 'id="view-1"' not in page


def test_a_name_cannot_leave_its_place(tmp_path: Path) -> None:
    name = "</script><img src=x onerror=alert(1)>{{plotly}}"
    write_page(tmp_path / "index.html", [missing_entry(name, RunNotes(error=name))])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<img" not in page[: page.rindex("<script>")]
    assert block(page, "header")["cases"][0]["name"] == name  # type: ignore[index]
    assert "script-src 'sha256-" in page


ONE = {"boxes": [[[0, 0, 0], [1, 2, 3]]], "warnings": ["odd"], "seconds": {"read": 1}, "parts": []}
MANY = {"cases": {"case_00001": ONE}, "failed": {"case_00002": {"error": "no file"}}}


def test_the_report_of_a_run_is_read_of_many_cases_and_of_one(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(MANY))
    assert read_notes(tmp_path, "case_00001") == RunNotes([Box((0, 0, 0), (1, 2, 3))], {"read": 1.0}, ["odd"], judged=True)
    assert read_notes(tmp_path, "case_00002").error == "no file"
    assert read_notes(tmp_path, "case_00003") == RunNotes()
    (tmp_path / "scan.json").write_text(json.dumps(ONE))
    assert read_notes(tmp_path, "scan").warnings == ["odd"]


def test_the_tumors_of_a_readout_are_in_the_table(tmp_path: Path) -> None:
    shown = scene(truth=False)
    told = readout_of(shown.prediction, Volume(shown.hu, SPACING, Grid(shown.hu.shape[::-1], SPACING[::-1], (0, 0, 0), IDENTITY)))
    entry = {**ONE, "readout": told}
    (tmp_path / "report.json").write_text(json.dumps({"cases": {"case_00001": entry}}))
    run = read_notes(tmp_path, "case_00001")
    assert run.warnings == ["odd"]
    write_page(tmp_path / "index.html", [entry_of(shown, run), entry_of(shown, RunNotes())])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    first, second = block(page, "header")["cases"]  # type: ignore[misc]
    (tumor,) = first["tumors"]
    assert {key: tumor[key] for key in ("id", "volume_ml", "axial_mm")} == {
        key: told["tumors"][0][key] for key in ("id", "volume_ml", "axial_mm")
    }
    assert tumor["renal"]["total"] == told["tumors"][0]["renal"]["total"]
    assert "tumors" not in second  # that run measured nothing


@pytest.mark.parametrize(
    "content", ["", "[]", '{"case_00001": 3}', '{"cases": []}', '{"failed": 1, "cases": {"case_00001": {}}}']
)
def test_no_report_that_can_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    assert read_notes(tmp_path, "case_00001") == RunNotes()


@pytest.mark.parametrize(
    "entry",
    [
        '{"boxes": [[1]], "seconds": {}}',
        '{"boxes": [], "seconds": {"read": NaN}}',
        '{"boxes": [], "seconds": {"read": Infinity}}',
        '{"boxes": [], "seconds": {"read": 1e999}}',
        '{"boxes": [], "seconds": {"read": "1"}}',
        '{"boxes": [], "seconds": [1]}',
        '{"boxes": [[[0, 0, NaN], [1, 1, 1]]]}',
        '{"boxes": [[[0, 0, 0.5], [1, 1, 1]]]}',
        '{"boxes": {"a": 1}}',
        '{"boxes": null}',
        '{"boxes": [], "warnings": [NaN]}',
        '{"boxes": [], "warnings": "odd"}',
        '{"boxes": [], "readout": {"tumors": [{"id": "left-1", "axial_mm": "31"}]}}',
        '{"boxes": [], "readout": {}}',
    ],
)
def test_a_damaged_report_is_a_warning_and_costs_no_page(tmp_path: Path, entry: str) -> None:
    (tmp_path / "report.json").write_text(f'{{"cases": {{"case_00001": {entry}}}}}')
    run = read_notes(tmp_path, "case_00001")
    assert run == RunNotes(warnings=["the run's report of this case is damaged"])
    write_page(tmp_path / "index.html", [entry_of(scene(), run)])
    assert run.warnings[0] in (tmp_path / "index.html").read_text(encoding="utf-8")


def without(values: Sequence[int], x: slice) -> Scene:
    """The scene with these labels taken out of a part of the columns."""
    whole = scene(truth=False)
    labels = whole.prediction.copy()
    part = labels[:, :, x]
    part[np.isin(part, values)] = 0
    return replace(whole, prediction=labels)


def test_doubts_of_the_labels() -> None:
    whole = scene(truth=False)
    assert doubts_of(whole, RunNotes()) == []
    assert doubts_of(without((1, 2), slice(0, 80)), RunNotes()) == ["one kidney: found on the left only"]
    assert doubts_of(without((1, 2), slice(None)), RunNotes()) == ["nothing found: no kidney and no tumor voxel in the result"]
    assert doubts_of(without((1, 2), slice(0, 80)), RunNotes(judged=True)) == []  # the run has looked itself
    cut = replace(whole, hu=whole.hu[10:], prediction=whole.prediction[10:])
    assert "field of view cuts the left kidney: it reaches the first slice of the volume" in doubts_of(cut, RunNotes())
    small = replace(whole, spacing=(2.5, 1.0, 0.8))
    assert sum("without its tumors" in doubt for doubt in doubts_of(small, RunNotes())) == 2
