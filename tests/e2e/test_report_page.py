"""The report's page in a browser: it opens with no network and no error, and its controls move what they should.

Needs a Chromium on the machine; nothing is installed for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kits.reporting.page import entry_of, missing_entry, write_page
from kits.reporting.run_notes import RunNotes
from kits.volume.rois import Box
from tests.unit.test_page import scene

pytestmark = pytest.mark.slow  # the browser draws surfaces in software
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Software rendering, so that a machine without a screen or a GPU draws the surfaces too.
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
BUSY_MS = 120_000  # a machine with other work parses plotly slowly
EVIL = "<img src=x onerror=document.title='evil'>"


@dataclass
class Opened:
    """A page and what it did."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def pixels(self, axis: int) -> str:
        """What a plane shows."""
        return self.page.evaluate(f"document.querySelector('figure[data-axis=\"{axis}\"] canvas').toDataURL()")

    def names(self) -> list[str]:
        """The cases in the order of the table."""
        return self.page.locator("#rows td:first-child").all_text_contents()

    def eye(self) -> dict[str, float]:
        """Where the camera is."""
        return self.page.evaluate(
            "(({x, y, z}) => ({x, y, z}))(document.getElementById('surfaces')._fullLayout.scene.camera.eye)"
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=BUSY_MS)
        yield running
        running.close()


def opened(browser: Any, path: Path) -> Opened:
    """Open a page and wait until its surfaces are drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(BUSY_MS)
    found = Opened(page)
    page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.getElementById('surfaces')._fullLayout?.scene?._scene?.glplot")
    return found


@pytest.fixture(scope="module")
def with_truth(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A good case with a warning, a bad one without, and one without a prediction."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    good, bad = scene("good"), scene(EVIL)
    bad.prediction[:, :, :80] = 0
    bad.scores.update(kidney=0.6, tumor=0.5, composite=0.55)
    good.scores.update(kidney=0.95, tumor=0.85, composite=0.9)
    run = RunNotes([Box((1, 10, 10), (20, 60, 60))], {"read": 0.5, "fine": 2.0}, ["touches", "odd"], judged=True)
    write_page(path, [entry_of(good, run), entry_of(bad, RunNotes(judged=True)), missing_entry("absent", RunNotes())])
    page = opened(browser, path)
    yield page
    page.page.close()


def test_the_page_needs_no_network_and_makes_no_error(with_truth: Opened) -> None:
    assert with_truth.errors == []
    assert [url for url in with_truth.requests if not url.startswith(("data:", "blob:", "file:"))] == []
    assert sum(url.startswith("file:") for url in with_truth.requests) == 1
    assert with_truth.page.title() == "Kidneys and kidney tumors"  # the name with markup in it did nothing


def test_the_table_is_sorted_by_score_by_doubt_and_by_name(with_truth: Opened) -> None:
    assert with_truth.names() == ["absent", EVIL, "good"]  # the worst first
    assert with_truth.page.inner_text("#title") == EVIL  # the worst that there is something to see of
    heads = with_truth.page.locator("#heads button")
    heads.filter(has_text="Composite").click()
    assert with_truth.names() == ["good", EVIL, "absent"]
    heads.filter(has_text="Doubt").click()
    assert with_truth.names() == ["absent", "good", EVIL]
    assert with_truth.page.get_attribute("#heads th:last-child", "aria-sort") == "descending"


def test_a_click_opens_a_case_with_its_figures(with_truth: Opened) -> None:
    page = with_truth.page
    page.locator("#rows tr", has_text="absent").click()
    assert page.inner_text("#message") == "no prediction"
    page.locator("#rows tr", has_text="good").click()
    page.wait_for_function("document.querySelector('#details dl')?.textContent.includes('ROI 1')")
    text = page.inner_text("#details")
    assert "40 × 50 × 95 mm" in text
    assert "2.5 s" in text
    assert "touches" in text
    assert "0.950" in text
    assert page.inner_text("#title") == "good"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slider_and_the_wheel_move_a_plane(with_truth: Opened, axis: int) -> None:
    page, figure = with_truth.page, f'figure[data-axis="{axis}"]'
    before, caption = with_truth.pixels(axis), page.inner_text(f"{figure} figcaption")
    page.locator(f"{figure} input").press("ArrowRight")
    assert with_truth.pixels(axis) != before
    assert page.inner_text(f"{figure} figcaption") != caption
    page.hover(f"{figure} canvas")
    page.mouse.wheel(0, 100)  # and back down
    page.wait_for_function(f"document.querySelector('{figure} figcaption').textContent === '{caption}'")
    assert with_truth.pixels(axis) == before


def test_a_click_into_a_plane_moves_the_others(with_truth: Opened) -> None:
    coronal, sagittal = with_truth.pixels(1), with_truth.pixels(2)
    with_truth.page.click('figure[data-axis="0"] canvas', position={"x": 150, "y": 130})
    assert with_truth.pixels(1) != coronal
    assert with_truth.pixels(2) != sagittal


@pytest.mark.parametrize("name", ["prediction", "truth", "kidney"])
def test_a_box_switches_outlines_off_and_on(with_truth: Opened, name: str) -> None:
    before = with_truth.pixels(1)
    box = with_truth.page.locator(f'#bar input[name="{name}"]')
    box.uncheck()
    assert with_truth.pixels(1) != before
    box.check()
    assert with_truth.pixels(1) == before


def test_surfaces_turn_on_a_drag_and_back_by_a_button(with_truth: Opened) -> None:
    page = with_truth.page
    front = with_truth.eye()
    box = page.locator("#surfaces").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 5):
        page.mouse.move(x + 20 * step, y)
        page.wait_for_timeout(100)
    page.mouse.up()
    page.wait_for_function("Math.abs(document.getElementById('surfaces')._fullLayout.scene.camera.eye.x) > 0.1")
    page.locator("#sides button", has_text="front").click()
    page.wait_for_function("Math.abs(document.getElementById('surfaces')._fullLayout.scene.camera.eye.x) < 1e-3")
    assert with_truth.eye() == pytest.approx(front, abs=1e-3)


def test_the_truth_is_added_to_the_surfaces(with_truth: Opened) -> None:
    page = with_truth.page
    shown = "document.getElementById('surfaces')._fullData.filter((trace) => trace.visible).map((trace) => trace.name)"
    assert page.evaluate(shown) == ["kidney, prediction", "tumor, prediction"]
    page.check('input[name="solid-truth"]')
    page.wait_for_function(f"{shown}.includes('tumor, truth')")
    page.uncheck('#bar input[name="kidney"]')
    page.wait_for_function(f"{shown}.join() === 'tumor, prediction,tumor, truth'")
    page.check('#bar input[name="kidney"]')
    assert with_truth.errors == []


def test_without_a_truth_the_most_doubtful_comes_first(browser: Any, tmp_path: Path) -> None:
    calm, odd = scene("calm", truth=False), scene("odd", truth=False)
    write_page(
        tmp_path / "index.html",
        [entry_of(calm, RunNotes(judged=True)), entry_of(odd, RunNotes(warnings=["strange"], judged=True))],
    )
    found = opened(browser, tmp_path / "index.html")
    assert found.names() == ["odd", "calm"]
    assert found.page.locator("#heads button").all_text_contents() == ["Case", "Kidney mL", "Tumor mL", "Doubt"]
    assert found.page.locator("#maps input").count() == 1
    assert found.errors == []
    found.page.close()
