"""Painted neighbors that touch the kidney with its own HU, and the adversary that must not profit from HU alone."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from kits.bench.threshold import Way, measure
from kits.bench.timing import judge
from kits.config.composing import checked, compose
from kits.config.schema import parse
from kits.config.schema.benches import ThresholdBench
from kits.config.schema.phantoms import Phantom
from kits.core.errors import KitsError
from kits.painter import decoys, variety
from kits.painter.anatomy import paint_surroundings
from kits.painter.canvas import Canvas
from kits.painter.fields import Field, Lattice, signed_distance
from kits.painter.frame import Body, find_body, shifted
from kits.painter.phases import PHASES, Contrast, draw_contrast
from kits.painter.trees import write_dataset
from tests.conftest import kidney_pair, write_case

EVEN = dict.fromkeys(PHASES, 1.0)
PORTAL = {**dict.fromkeys(PHASES, 0.0), "portal": 1.0}
LATTICE = Lattice.cover((0, 0, 0), (200, 300, 400), (5, 4, 4))


def write(output: Path, **options: Any) -> list[str]:
    given = {"output": str(output), "seed": 3, "spacing_z": [9.0, 10.0], "spacing_xy": [5.4, 5.6], "matrix": 64, **options}
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    return write_dataset(parse(Phantom, {**compose("phantom", ["output=x"]), **given}))


def pixels(path: Path) -> np.ndarray:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return np.asarray(image.dataobj)


@cache
def kidneys() -> tuple[np.ndarray, Field]:
    """Labels of two plain kidneys, and the distance to them, on `LATTICE`."""
    labels = np.zeros(LATTICE.shape, np.uint8)
    z, y, x = np.meshgrid(*LATTICE.axes, indexing="ij", sparse=True)
    for middle in (130, 270):
        labels[((z - 100) / 55) ** 2 + ((y - 170) / 28) ** 2 + ((x - middle) / 28) ** 2 < 1] = 1
    return labels, signed_distance(labels > 0, LATTICE.step)


def scene(seed: int) -> tuple[Body, Field]:
    """A body with these kidneys, and the distance to them."""
    labels, distance = kidneys()
    return find_body(labels, LATTICE, (200, 300, 400), np.random.default_rng(seed)), distance


def blank(seed: int, contrast: Contrast, amount: float) -> Canvas:
    """A canvas of fat whose wall is far away."""
    body, distance = scene(seed)
    canvas = Canvas.blank(np.random.default_rng(seed), body, contrast, shifted(LATTICE, body.origin), distance, amount)
    canvas.hu[:] = -100
    canvas.inside = np.full(LATTICE.shape, -200, np.float32)
    return canvas


# --- what is drawn without variety stays --------------------------------------------------------------------------------


def test_drawn_cases_are_painted_as_ever(tmp_path: Path) -> None:
    """Voxels of a case from before there was variety: the demo was measured on such."""
    write(tmp_path, cases=2)
    first, second = (pixels(tmp_path / f"case_0000{k}" / "imaging.nii.gz").T[32, 10:60:8] for k in (0, 1))
    np.testing.assert_allclose(first[:, first.shape[1] // 2], [-987, -1017, 23, 80, 75, -116, -1015], atol=3)
    np.testing.assert_allclose(second[:, second.shape[1] // 2], [-1016, -48, 35, 228, 148, -98, -998], atol=3)


def test_no_variety_draws_no_random_number() -> None:
    rng, untouched = np.random.default_rng(5), np.random.default_rng(5)
    contrast = draw_contrast(np.random.default_rng(0), PORTAL)
    canvas = blank(1, contrast, 0)
    canvas.rng = rng
    kidney = np.full(LATTICE.shape, 150, np.float32)
    variety.paint_contacts(canvas)
    gap = np.ones(LATTICE.shape, np.float32)
    assert variety.close_gaps(canvas, gap) is gap
    assert variety.vary_contrast(rng, contrast, 0) is contrast
    assert variety.vary_kidney(rng, kidney, LATTICE, 0) is kidney
    assert rng.random() == untouched.random()
    assert (canvas.hu == -100).all()


# --- what variety adds --------------------------------------------------------------------------------------------------


def test_many_livers_and_spleens_get_the_hu_of_the_kidney() -> None:
    def alike(amount: float) -> float:
        near = []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            contrast = variety.vary_contrast(rng, draw_contrast(rng, PORTAL), amount)
            kidney = 0.6 * contrast["cortex"] + 0.4 * contrast["medulla"]
            near.append(min(abs(contrast["liver"] - kidney), abs(contrast["spleen"] - kidney)) < 20)
        return float(np.mean(near))

    assert alike(1) > alike(0) + 0.25


def test_contrast_of_every_phase_keeps_plausible_hu() -> None:
    for seed in range(300):
        rng = np.random.default_rng(seed)
        contrast = variety.vary_contrast(rng, draw_contrast(rng, EVEN), 1)
        assert 20 <= contrast["liver"] <= 150
        assert 20 <= contrast["spleen"] <= 190
        assert 20 <= contrast["cortex"] <= 250


@pytest.mark.parametrize("painter", [variety.paint_organ, variety.paint_mass, variety.paint_bowel_beside])
def test_neighbors_touch_the_kidney(painter: Any) -> None:
    """Tissue on voxels next to the kidney, in most of the tries, where there was fat."""
    touching = []
    for seed in range(12):
        canvas = blank(seed, draw_contrast(np.random.default_rng(seed), PORTAL), 1)
        painter(canvas, canvas.body.kidneys[seed % 2])
        skin = (canvas.distance > 0) & (canvas.distance < 5)
        touching.append(((canvas.hu > 0) & skin).sum())
    assert np.median(touching) >= 4


def test_more_of_the_kidneys_surface_has_soft_tissue_on_it() -> None:
    def covered(amount: float) -> float:
        shares = []
        for seed in range(6):
            body, distance = scene(seed)
            rng = np.random.default_rng(seed)
            contrast = variety.vary_contrast(rng, draw_contrast(rng, PORTAL), amount)
            hu = paint_surroundings(rng, body, contrast, LATTICE, distance, amount=amount, share=0)
            shares.append(float(((hu > 30) & (hu < 250))[(distance > 0) & (distance < 5)].mean()))
        return float(np.mean(shares))

    assert covered(1) > 1.2 * covered(0)


def test_kidneys_become_uneven_and_differ_from_one_another() -> None:
    kidney = np.full(LATTICE.shape, 150, np.float32)
    varied = [variety.vary_kidney(np.random.default_rng(seed), kidney, LATTICE, 1) for seed in range(8)]
    assert np.std([field.mean() for field in varied]) > 5
    assert np.mean([field.std() for field in varied]) > 2
    assert varied[0].dtype == np.float32


def test_bodies_are_thin_and_stout() -> None:
    bodies = [scene(seed)[0] for seed in range(25)]
    assert np.ptp([body.half_width for body in bodies]) > 25
    assert min(body.fat for body in bodies) < 15
    assert max(body.fat for body in bodies) > 28


# --- the command --------------------------------------------------------------------------------------------------------


def test_given_labels_get_variety_the_same_for_any_number_of_workers_and_their_phase_is_recorded(tmp_path: Path) -> None:
    write(tmp_path / "source", cases=2)
    for name, options in (
        ("one", {}),
        ("two", {"workers": 2}),
        ("plain", {"variety": {"drawn": 0, "labels": 0}}),
    ):
        write(tmp_path / name, cases=None, labels=tmp_path / "source", **options)
    for case_id in ("case_00000", "case_00001"):
        one, two, plain = ((tmp_path / name / case_id / "imaging.nii.gz").read_bytes() for name in ("one", "two", "plain"))
        assert one == two != plain
    records = json.loads((tmp_path / "one" / "kits.json").read_text(encoding="utf-8"))
    assert all(record["painted"]["phase"] in PHASES and record["painted"]["variety"] == 1 for record in records)


@pytest.mark.parametrize("amount", [-0.1, 2, "much", None])
def test_an_impossible_variety_is_named(amount: object, tmp_path: Path) -> None:
    with pytest.raises(KitsError, match=r"variety\.drawn"):
        write(tmp_path, cases=1, variety={"drawn": amount, "labels": 1})


# --- the adversary ------------------------------------------------------------------------------------------------------


def settings(root: Path) -> ThresholdBench:
    found: ThresholdBench = checked("bench_threshold", [f"root={root}", "grid_mm=4", "thresholds=[0,200,20]"])
    return found


def test_the_adversary_finds_bright_kidneys_and_dark_tumors_and_the_bars_say_so(
    kits_tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In `kits_tree` kidneys have 180 HU in a body of -50, tumors 60: a threshold and a band are enough."""
    figures = measure(settings(kits_tree))
    assert figures["kidney"] > 0.85
    assert figures["tumor_band"] > 0.4
    assert figures["tumor"] < figures["tumor_band"]
    assert "not recorded (4 cases)" in capsys.readouterr().out
    with pytest.raises(KitsError, match="kidney"):
        judge(figures, settings(kits_tree).bars)


def test_the_adversary_fails_where_the_body_has_the_kidneys_hu(tmp_path: Path) -> None:
    hu, labels = kidney_pair(0)
    hu[hu > -200] = 100
    write_case(tmp_path, "case_00000", hu, labels)
    figures = measure(settings(tmp_path))
    assert figures["kidney_band"] < 0.4
    assert figures["tumor_band"] < 0.2


def test_an_adversary_without_a_tree_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(KitsError, match="nowhere: no such folder"):
        measure(settings(tmp_path / "nowhere"))


def test_a_way_reads_as_what_it_does() -> None:
    assert str(Way((120.0, np.inf), 2)) == "HU >= 120, 2 largest"
    assert str(Way((-np.inf, 40.0), 1)) == "HU < 40, 1 largest"
    assert str(Way((20.0, 60.0), 1)) == "20 <= HU < 60, 1 largest"


# --- decoys -------------------------------------------------------------------------------------------------------------


def test_no_decoys_draw_no_random_number() -> None:
    canvas = blank(1, draw_contrast(np.random.default_rng(0), PORTAL), 0)
    untouched = np.random.default_rng(5)
    canvas.rng = np.random.default_rng(5)
    decoys.paint_inner_decoys(canvas, 0)
    decoys.paint_outer_decoys(canvas, 0)
    assert canvas.rng.random() == untouched.random()
    assert (canvas.hu == -100).all()


def test_a_large_mass_has_a_tumors_hu_and_keeps_off_the_kidneys() -> None:
    for seed in range(6):
        canvas = blank(seed, draw_contrast(np.random.default_rng(seed), PORTAL), 0)
        kidney = canvas.body.kidneys[0]
        decoys.paint_large_mass(canvas, (kidney.high[0] + 10, kidney.center[1], kidney.center[2]), 30.0)
        mass = canvas.hu > -50
        assert 30_000 < mass.sum() * np.prod(LATTICE.step) < 200_000
        assert 0 < np.median(canvas.hu[mass]) < 250
        assert not (mass & (canvas.distance < -2)).any()


def test_a_bladder_lies_below_the_kidneys_and_only_in_scans_that_reach_there() -> None:
    low = Lattice.cover((-260, 0, 0), (200, 300, 400), (5, 4, 4))
    body, _ = scene(0)
    distance = np.full(low.shape, 500, np.float32)
    contrast = draw_contrast(np.random.default_rng(0), {**dict.fromkeys(PHASES, 0.0), "excretory": 1.0})
    canvas = Canvas.blank(np.random.default_rng(3), body, contrast, shifted(low, body.origin), distance, 0)
    canvas.hu[:], canvas.inside = -100, np.full(low.shape, -200, np.float32)
    decoys.paint_pelvic_organs(canvas)
    planes = canvas.lattice.z[(canvas.hu > -50).any(axis=(1, 2))]
    assert planes.max() < -90
    assert ((canvas.hu > -50).sum() * np.prod(low.step)) > 50_000


def test_an_arm_lies_in_the_air_and_nowhere_else() -> None:
    canvas = blank(0, draw_contrast(np.random.default_rng(0), PORTAL), 0)
    canvas.hu[..., 80:] = -1000
    before = canvas.hu.copy()
    decoys.paint_arm(canvas, 1)
    np.testing.assert_array_equal(canvas.hu[..., :80], before[..., :80])
    assert (canvas.hu[..., 80:] > 30).any()


def test_metal_streaks_the_slices_that_hold_it_and_no_others() -> None:
    found = set()
    for seed in range(12):
        canvas = blank(seed, draw_contrast(np.random.default_rng(0), PORTAL), 0)
        decoys.paint_metal(canvas)
        changed = abs(canvas.hu + 100).max(axis=(1, 2))
        if (canvas.hu > 1000).any():  # a hip lies below this lattice
            streaked = int(abs(canvas.hu + 100).max(axis=(1, 2)).argmax())
            assert (abs(canvas.hu[streaked] + 100) > 5).mean() > 0.02
            found.add(seed)
        assert changed.min() < 1
    assert len(found) >= 4
